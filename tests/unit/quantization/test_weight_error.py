"""What the weights alone tell of a preset's loss, beside one that was measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from thriftbit.formats import format_named
from thriftbit.quantization.weight_error import predicted_losses, relative_errors, weight_errors
from thriftbit.sources.model import Model

PRESETS = ("F32", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")


def test_errors_grow_as_bits_get_fewer(model: Model) -> None:
    errors = weight_errors(model, PRESETS)
    assert errors["F32"] == 0
    assert list(errors.values()) == sorted(errors.values()) and errors["Q2_K"] < 0.2


def test_a_sample_of_rows_tells_nearly_what_all_rows_do(model: Model) -> None:
    tensor = next(tensor for tensor in model.tensors if tensor.name == "blk.0.ffn_down_exps.weight")
    rows = tensor.load().reshape(-1, tensor.width)
    for name in ("Q4_K", "Q2_K"):
        whole = format_named(name).decode(format_named(name).encode(rows))
        share = float(np.square(whole - rows).sum() / np.square(rows).sum())
        assert relative_errors(tensor, [name])[name] == pytest.approx(share, rel=0.05)


def test_one_measured_level_gives_the_others_in_proportion() -> None:
    errors = {"Q8_0": 1e-5, "Q4_K_M": 4e-3, "Q2_K": 6e-2, "F16": 0.0}
    predicted = predicted_losses(errors, {"Q4_K_M": 0.02})
    assert predicted["Q4_K_M"] == pytest.approx(0.02)
    assert predicted["Q2_K"] == pytest.approx(0.3) and predicted["Q8_0"] == pytest.approx(5e-5)
    assert predicted["F16"] == 0
    assert predicted_losses(errors, {}) == {} == predicted_losses(errors, {"Q5_0": 0.01})


def test_a_nearer_measured_level_counts_more() -> None:
    errors = {"Q6_K": 1e-3, "Q5_K_M": 2e-3, "Q4_K_M": 4e-3, "Q2_K": 1e-1}
    predicted = predicted_losses(errors, {"Q6_K": 1e-3, "Q2_K": 0.3})
    low, high = predicted["Q5_K_M"] / errors["Q5_K_M"], predicted["Q4_K_M"] / errors["Q4_K_M"]
    assert 1 < low < high < 3


@pytest.mark.parametrize("rows", [1, 3])
def test_matrices_of_a_few_rows(model: Model, rows: int) -> None:
    tensor = next(tensor for tensor in model.tensors if tensor.name == "blk.0.attn_q.weight")
    small = replace(tensor, shape=(rows, tensor.width))
    assert 0 < relative_errors(small, ["Q4_K"])["Q4_K"] < 0.02
