"""The original as a file: written without loss, announced, and gone afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from thriftbit.errors import ThriftbitError
from thriftbit.measurement.original import lossless_plan, original_file
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.quantize import quantize
from thriftbit.sources.model import Model
from thriftbit.sources.open_model import open_model


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> Model:
    return open_model(tiny_llama)


def stored_as(model: Model, matrices: str, vectors: str = "F32") -> Model:
    """Return the model, if its source had stored it so."""
    tensors = [replace(t, source_dtype=matrices if len(t.shape) > 1 else vectors) for t in model.tensors]
    return replace(model, tensors=tuple(tensors))


@pytest.mark.parametrize(
    ("matrices", "vectors", "preset"),
    [
        ("BF16", "BF16", "BF16"),
        ("BF16", "F32", "BF16"),
        ("F16", "F16", "F16"),
        ("F32", "F32", "F32"),
    ],
)
def test_sixteen_bits_where_they_hold_everything(model: Model, matrices: str, vectors: str, preset: str) -> None:
    assert lossless_plan(stored_as(model, matrices, vectors)).preset == preset


def test_one_matrix_of_another_kind_takes_32_bits(model: Model) -> None:
    first, *others = stored_as(model, "BF16").tensors
    assert lossless_plan(replace(model, tensors=(replace(first, source_dtype="F16"), *others))).preset == "F32"


def test_a_checkpoint_is_written_out_announced_and_deleted(model: Model, tmp_path: Path, told: list[str]) -> None:
    with original_file(model, folder=tmp_path) as path:
        written = open_model(path)
        for tensor in model.tensors:
            (same,) = [each for each in written.tensors if each.name == tensor.name]
            np.testing.assert_array_equal(same.load(), tensor.load())
        assert len(told) == 1 and str(path.parent) in told[0] and "F32" in told[0] and "MB" in told[0]
    assert list(tmp_path.iterdir()) == []


def test_it_is_deleted_when_the_work_fails(model: Model, tmp_path: Path) -> None:
    with (
        pytest.raises(ThriftbitError, match="of the work"),
        original_file(model, folder=tmp_path),
    ):
        raise ThriftbitError("of the work")
    assert list(tmp_path.iterdir()) == []


def test_a_gguf_is_its_own_file(model: Model, tmp_path: Path, told: list[str]) -> None:
    path = quantize(model, make_plan(model, "F16"), tmp_path / "tiny.gguf").path
    with original_file(open_model(path)) as own:
        assert own == path
    assert path.exists() and told == []
