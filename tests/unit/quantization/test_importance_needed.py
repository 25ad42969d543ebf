"""Formats of few bits without importance data, and rows and tensors that a format does not suit: told before the first
weight is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import RunThriftbit
from thriftbit.errors import ThriftbitError
from thriftbit.quantization.importance import ImportanceMatrix
from thriftbit.quantization.importance_needed import NeedsImportanceError, tensors_that_need_importance
from thriftbit.quantization.plan import CUSTOM, checked_plan, make_plan
from thriftbit.quantization.plan_summary import describe_fallbacks
from thriftbit.quantization.presets import PRESETS
from thriftbit.quantization.quantize import quantize
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import FloatArray

QUERY, EXPERTS = "blk.0.attn_q.weight", "blk.0.ffn_down_exps.weight"
ALL = {"blk.0.attn_v.weight": 1, QUERY: 1, EXPERTS: 2}


@pytest.fixture
def unread(model: Model) -> Model:
    """Return the model; it fails where a weight is read."""
    return replace(model, tensors=tuple(replace(tensor, read=_never) for tensor in model.tensors))


def _never(start: int, stop: int) -> FloatArray:
    raise AssertionError("a weight was read")


def importance(*names: str, zero: str = "") -> ImportanceMatrix:
    """Return data that says the same of all columns, and nothing of the last matrix of `zero`."""

    def values(name: str) -> FloatArray:
        found = np.ones((ALL[name], 256), np.float32)
        found[-1] *= name != zero
        return found

    return ImportanceMatrix(Path("text.imatrix"), (), 0, {name: lambda name=name: values(name) for name in names})


def test_a_preset_of_few_bits_without_importance_is_refused_before_a_weight_is_read(
    unread: Model, tmp_path: Path
) -> None:
    with pytest.raises(NeedsImportanceError, match=r"Q2_K_S needs importance data.*--effort calibrated.*--imatrix"):
        quantize(unread, make_plan(unread, "Q2_K_S"), tmp_path / "tiny.gguf")
    assert not list(tmp_path.iterdir())


def test_the_same_formats_in_another_preset_are_not(model: Model, tmp_path: Path) -> None:
    plan = make_plan(model, "Q2_K")
    assert "Q2_K" in plan.formats.values() and tensors_that_need_importance(model, plan) == []
    assert quantize(model, plan, tmp_path / "tiny.gguf").path.exists()


def test_who_insists_gets_it_and_is_warned(model: Model, tmp_path: Path, told: list[str]) -> None:
    quantize(model, make_plan(model, "Q2_K_S"), tmp_path / "tiny.gguf", without_importance=True)
    assert any("without importance data: expect a large loss" in message for message in told)


def test_importance_that_leaves_out_a_tensor_is_refused_by_name(unread: Model, tmp_path: Path) -> None:
    with pytest.raises(NeedsImportanceError, match=rf"{EXPERTS}: gets Q2_K, .* says nothing about it;"):
        quantize(
            unread,
            make_plan(unread, "Q2_K_S"),
            tmp_path / "tiny.gguf",
            importance=importance(QUERY, "blk.0.attn_v.weight"),
        )


def test_importance_of_zero_for_whole_rows_is_told_first_and_costs_no_more(
    model: Model, tmp_path: Path, told: list[str]
) -> None:
    plan = make_plan(model, "Q2_K_S", importance=True)
    result = quantize(model, plan, tmp_path / "tiny.gguf", importance=importance(*ALL, zero=EXPERTS))
    assert any(EXPERTS in message and "all zero" in message for message in told)
    assert result.coverage is not None and result.coverage.unreached == {EXPERTS: 1}
    even = quantize(model, plan, tmp_path / "even.gguf", importance=importance(*ALL))
    assert result.path.read_bytes()[-30_000:] == even.path.read_bytes()[-30_000:]  # equal weights in place of none


def test_embedding_and_output_need_none(model: Model) -> None:
    formats = {tensor.name: "F32" for tensor in model.tensors} | {"token_embd.weight": "Q2_K", "output.weight": "Q2_K"}
    plan = checked_plan(model, formats, "Q2_K_S", "a test")
    assert tensors_that_need_importance(model, plan) == []


def test_rows_that_no_block_fits_are_told(model: Model) -> None:
    odd = replace(model, tensors=tuple(replace(t, shape=(*t.shape[:-1], 200)) for t in model.tensors))
    note = describe_fallbacks(odd, PRESETS["Q4_K_M"], importance=False)
    assert "rows of 200 weights do not divide into the blocks of Q4_K_M" in note and "F16 in place of Q4_K" in note
    assert set(make_plan(odd, "Q4_K_M").formats.values()) == {"F16", "F32"}
    assert describe_fallbacks(model, PRESETS["Q4_K_M"], importance=False) == ""


@pytest.mark.parametrize(
    ("name", "format", "width", "message"),
    [
        (QUERY, "Q2_K", 200, rf"{QUERY}: rows of 200 weights do not divide into the blocks of 256 that Q2_K needs"),
        ("output_norm.weight", "Q2_K", 256, r"output_norm\.weight: has to be F32"),
        (QUERY, "Q8_K", 256, rf"{QUERY}: there is no format 'Q8_K'"),
    ],
)
def test_a_plan_that_names_a_format_for_a_tensor_it_does_not_suit(
    unread: Model, name: str, format: str, width: int, message: str
) -> None:
    tensors = [replace(t, shape=(*t.shape[:-1], width)) if t.name == name else t for t in unread.tensors]
    changed = replace(unread, tensors=tuple(tensors))
    formats = {tensor.name: "F32" for tensor in changed.tensors} | {name: format}
    with pytest.raises(ThriftbitError, match=message):
        checked_plan(changed, formats, CUSTOM, "a test")


def test_the_command_says_so_before_it_opens_or_downloads_a_model(run_thriftbit: RunThriftbit) -> None:
    result = run_thriftbit("quantize", "somebody/nothing", "--to", "q2ks")
    assert result.returncode == 2 and "Q2_K_S needs importance data" in result.stderr


def test_a_dry_run_shows_the_plan_and_says_what_is_missing(tiny_llama: Path, run_thriftbit: RunThriftbit) -> None:
    result = run_thriftbit("quantize", str(tiny_llama), "--to", "Q2_K_S", "--dry-run")
    assert result.returncode == 0 and "Q2_K_S needs importance data" in " ".join(result.stdout.split())
