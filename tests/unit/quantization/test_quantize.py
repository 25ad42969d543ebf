from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from thriftbit.containers.gguf_reader import read_gguf
from thriftbit.errors import ThriftbitError
from thriftbit.formats import format_named
from thriftbit.quantization import quantize as loop
from thriftbit.quantization.gguf_file import file_layout
from thriftbit.quantization.importance import ImportanceMatrix
from thriftbit.quantization.plan import Plan, make_plan
from thriftbit.quantization.quantize import quantize
from thriftbit.sources.model import Model


def test_the_file_holds_every_tensor_as_planned(model: Model, tmp_path: Path) -> None:
    plan = make_plan(model, "Q8_0", overrides=[("attn_v", "F16")])
    result = quantize(model, plan, tmp_path / "tiny.gguf", threads=1)

    assert result.path == tmp_path / "tiny.gguf"
    assert result.size_bytes == result.path.stat().st_size == file_layout(model, plan).file_size_bytes
    assert result.bits_per_weight == plan.bits_per_weight(model)
    reader = gguf.GGUFReader(result.path)  # not ours
    assert [tensor.name for tensor in reader.tensors] == [tensor.name for tensor in model.tensors]
    for ours, theirs in zip(model.tensors, reader.tensors, strict=True):
        assert theirs.tensor_type.name == plan.formats[ours.name]
        assert tuple(theirs.shape.tolist()) == ours.shape[::-1]
        original = ours.load()
        decoded = gguf.quants.dequantize(theirs.data, theirs.tensor_type).reshape(original.shape)
        assert np.square(decoded - original).sum() < 1e-4 * np.square(original).sum()
    metadata = read_gguf(result.path).metadata
    assert Plan.from_json(str(metadata["thriftbit.plan"]), model) == plan


def test_small_pieces_give_the_same_file(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(model, "Q8_0")
    whole = quantize(model, plan, tmp_path / "whole.gguf").path.read_bytes()
    monkeypatch.setattr(loop, "CHUNK_BYTES", 3 * 256 * 4)  # does not divide the 64 rows of an expert
    assert quantize(model, plan, tmp_path / "pieces.gguf").path.read_bytes() == whole


def test_each_expert_is_encoded_with_its_own_importance(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "blk.0.ffn_down_exps.weight"
    weights = np.stack([np.linspace(0, 100, 256), np.linspace(100, 0, 256)]).astype(np.float32)
    importance = ImportanceMatrix(Path("folder/imatrix.dat"), ("wiki.txt",), 3, {name: weights.copy})
    plan = make_plan(model, "Q8_0", overrides=[("ffn_down_exps", "Q4_K")])
    monkeypatch.setattr(loop, "CHUNK_BYTES", 40 * 256 * 4)  # an expert is 40 rows and 24 more
    result = quantize(model, plan, tmp_path / "tiny.gguf", importance=importance)

    file = read_gguf(result.path)
    info = next(info for info in file.tensors if info.name == name)
    tensor = next(tensor for tensor in model.tensors if tensor.name == name)
    encoded = [format_named("Q4_K").encode(tensor.load(64 * i, 64 * (i + 1)), weights[i]) for i in (0, 1)]
    np.testing.assert_array_equal(file.read(info), np.concatenate(encoded))
    assert result.coverage is not None
    assert result.coverage.missing == ("blk.0.attn_q.weight", "blk.0.attn_v.weight")
    assert {key: value for key, value in file.metadata.items() if key.startswith("quantize.")} == {
        "quantize.imatrix.file": "imatrix.dat",
        "quantize.imatrix.dataset": "wiki.txt",
        "quantize.imatrix.entries_count": 1,
        "quantize.imatrix.chunks_count": 3,
    }


def test_progress_counts_every_byte(model: Model, tmp_path: Path) -> None:
    plan, told = make_plan(model, "Q8_0"), []
    quantize(model, plan, tmp_path / "tiny.gguf", progress=lambda *report: told.append(report))
    names, done = zip(*told, strict=True)
    assert list(dict.fromkeys(names)) == [tensor.name for tensor in model.tensors]
    assert list(done) == sorted(done) and done[-1] == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("preset", ["F32", "Q8_0"])
def test_weights_that_are_not_finite_are_named(
    model: Model, make_tensor: Callable[..., Any], tmp_path: Path, value: float, preset: str
) -> None:
    first, *others = model.tensors
    values = first.load()
    values[23, 5] = value
    damaged = replace(model, tensors=(make_tensor(first.name, values), *others))
    with pytest.raises(ThriftbitError, match=r"token_embd\.weight, row 23: weight 5 is -?(nan|inf)"):
        quantize(damaged, make_plan(damaged, preset), tmp_path / "tiny.gguf")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_the_format_cannot_hold_are_named(
    model: Model, make_tensor: Callable[..., Any], tmp_path: Path
) -> None:
    first, *others = model.tensors
    values = first.load()
    values[23, 5] = 1e6  # finite, and beyond what F16 reaches
    large = replace(model, tensors=(make_tensor(first.name, values), *others))
    with pytest.raises(
        ThriftbitError, match=r"token_embd\.weight, row 23: weight 5 is 1000000\.0, more than F16 can hold"
    ):
        quantize(large, make_plan(large, "F16"), tmp_path / "tiny.gguf")
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing_behind(model: Model, tmp_path: Path) -> None:
    def interrupt(name: str, fraction: float) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        quantize(model, make_plan(model, "Q8_0"), tmp_path / "tiny.gguf", progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() == before


def test_an_existing_file_is_kept_unless_forced(model: Model, tmp_path: Path) -> None:
    output = tmp_path / "tiny.gguf"
    output.write_text("mine")
    plan = make_plan(model, "Q8_0")
    with pytest.raises(ThriftbitError, match="exists already"):
        quantize(model, plan, output)
    assert output.read_text() == "mine"
    quantize(model, plan, output, force=True)
    assert read_gguf(output).tensors


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("model.gguf", "model.gguf"),
        ("model-00001-of-00002.gguf", "model-00002-of-00002.gguf"),
        (".", "model.safetensors"),
    ],
)
def test_the_source_is_never_replaced(model: Model, tmp_path: Path, source: str, output: str) -> None:
    for name in (source, output):
        if name != ".":
            (tmp_path / name).write_text("the model")
    reading = replace(model, source=str(tmp_path / source))
    with pytest.raises(ThriftbitError, match="is the model that is being read"):
        quantize(reading, make_plan(model, "Q8_0"), tmp_path / output, force=True)
    assert (tmp_path / output).read_text() == "the model"


def test_a_plan_for_another_model_is_refused_before_anything_is_written(model: Model, tmp_path: Path) -> None:
    plan = make_plan(model, "Q8_0")
    other = replace(model, tensors=model.tensors[:-1])
    with pytest.raises(ThriftbitError, match="does not have it"):
        quantize(other, plan, tmp_path / "tiny.gguf")
    assert list(tmp_path.iterdir()) == []
