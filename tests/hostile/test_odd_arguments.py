"""Pipes, devices and folders in the place of files that options name, and metadata of unexpected types."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import RunThriftbit
from thriftbit import inspect
from thriftbit.containers.entry import Entry
from thriftbit.containers.ggml_types import format_for
from thriftbit.containers.gguf_reader import read_gguf
from thriftbit.containers.gguf_writer import GGUFWriter, layout
from thriftbit.errors import ThriftbitError
from thriftbit.formats import format_named
from thriftbit.library.content import gguf_content
from thriftbit.quantization.calibration_text import calibration_windows
from thriftbit.quantization.gguf_file import file_metadata
from thriftbit.quantization.importance import read_importance
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.quantize import quantize
from thriftbit.sources.model import Model
from thriftbit.sources.open_model import open_model
from thriftbit.sources.remote import open_outline

ODD: list[Any] = [
    np.array([1, 2], np.int32),
    np.array([], np.float32),
    ["a", "b"],
    "x",
    np.float32(np.nan),
    np.int32(-5),
    np.uint64(2**63),
    True,
]


@pytest.fixture(params=["pipe", "folder", "device"])
def no_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "no-file"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    return path


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> Model:
    return open_model(tiny_llama)


READERS: dict[str, Callable[[Model, Path], object]] = {
    "--imatrix": lambda model, path: read_importance(path),
    "--calibrate-on": lambda model, path: calibration_windows(model, path, 4),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_what_is_no_file_is_told_and_does_not_hang(
    model: Model, no_file: Path, read: Callable[[Model, Path], object]
) -> None:
    with pytest.raises(ThriftbitError, match="is not a regular file"):
        read(model, no_file)


def test_on_the_command_line_as_well(no_file: Path, tiny_llama: Path, run_thriftbit: RunThriftbit) -> None:
    for options in (["quantize", tiny_llama, "--plan", no_file], ["report", no_file], ["inspect", no_file]):
        result = run_thriftbit(*options)
        assert result.returncode != 0 and "Traceback" not in result.stderr
        assert "error" in result.stderr.lower()


@pytest.mark.parametrize(
    "count", [np.int64(-1), np.int32(-5), np.uint64(2**33), np.uint64(2**63), "x", True, np.float32(5)]
)
def test_an_odd_count_in_an_importance_file_counts_as_none(model: Model, tmp_path: Path, count: Any) -> None:
    values = {}
    for tensor in model.tensors:
        if len(tensor.shape) == 2:
            values[f"{tensor.name}.in_sum2"] = np.ones((1, tensor.width), np.float32)
            values[f"{tensor.name}.counts"] = np.ones((1, 1), np.float32)
    entries = [Entry(name, each.shape, format_named("F32")) for name, each in values.items()]
    metadata = {"general.type": "imatrix", "imatrix.chunk_count": count, "imatrix.datasets": ["text"]}
    with GGUFWriter(tmp_path / "imatrix.gguf", layout(metadata, entries)) as writer:
        for name, each in values.items():
            writer.write(name, [each.view(np.uint8)])
    importance = read_importance(tmp_path / "imatrix.gguf")
    written = file_metadata(model, make_plan(model, "Q4_K_M"), importance, "")
    assert 0 <= int(written.get("quantize.imatrix.chunks_count", 0)) < 2**32  # type: ignore[arg-type]


def test_every_key_may_be_of_any_type(model: Model, tmp_path: Path) -> None:
    sound = read_gguf(quantize(model, make_plan(model, "Q8_0"), tmp_path / "sound.gguf").path)
    entries = [Entry(info.name, info.shape, format_for(info.ggml_type)) for info in sound.tensors]
    blocks = [sound.read(info).reshape(-1) for info in sound.tensors]
    large = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.token_type")
    path = tmp_path / "odd.gguf"
    for key in [key for key in sound.metadata if key not in large] + ["split.count", "general.type"]:
        for odd in ODD:
            try:
                described = layout({**sound.metadata, key: odd}, entries)
            except (ValueError, TypeError):
                continue
            with GGUFWriter(path, described, force=True) as writer:
                for info, content in zip(sound.tensors, blocks, strict=True):
                    writer.write(info.name, [content])
            for look in (open_outline, inspect, lambda path: gguf_content([read_gguf(path)])):
                try:
                    look(path)
                except ThriftbitError as error:
                    assert len(str(error).splitlines()) <= 2


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="modes of Unix")
def test_measure_shows_what_it_cannot_keep(
    tiny_llama: Path, model: Model, tmp_path: Path, run_thriftbit: RunThriftbit
) -> None:
    path = quantize(model, make_plan(model, "Q8_0"), tmp_path / "tiny.gguf").path
    (tmp_path / "no-folder").write_bytes(b"")
    result = run_thriftbit(
        "measure",
        path,
        "--only",
        "speed",
        "--time",
        "1s",
        "--threads",
        "1",
        THRIFTBIT_CACHE=str(tmp_path / "no-folder"),
    )
    assert result.returncode == 0, result.stderr
    assert "Warning: " in result.stderr and "measurements cannot be kept" in result.stderr
    assert "tokens/s" in result.stdout
