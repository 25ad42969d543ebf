"""Files in types, and of architectures, that llama.cpp runs and the `gguf` package does not know."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from peers import llama_cpp

import thriftbit
from conftest import RunThriftbit
from thriftbit.containers.entry import Entry
from thriftbit.containers.ggml_types import EngineType, block_of, format_for, ggml_type
from thriftbit.containers.gguf_reader import read_gguf
from thriftbit.containers.gguf_writer import GGUFWriter, layout
from thriftbit.formats import FORMATS
from thriftbit.runtime.architectures import llama_cpp_knows

Q1_0, Q2_0 = 41, 42
NEW_TYPES = pytest.mark.parametrize("number", [Q1_0, Q2_0], ids=["Q1_0", "Q2_0"])


def write(source: Path, path: Path, number: int) -> Path:
    """The model in a type that llama.cpp's own encoder writes"""
    model = thriftbit.open_model(source)
    kind = ggml_type(number)
    assert kind is not None
    stored = format_for(kind)
    formats = [stored if tensor.role.startswith(("attention", "ffn")) else FORMATS["F32"] for tensor in model.tensors]
    entries = [Entry(t.name, t.shape, format) for t, format in zip(model.tensors, formats, strict=True)]
    metadata = {"general.architecture": model.architecture, **model.metadata}
    with GGUFWriter(path, layout(metadata, entries)) as writer:
        for tensor, entry in zip(model.tensors, entries, strict=True):
            rows = np.ascontiguousarray(tensor.load())
            same = entry.format is not stored
            blocks = (
                entry.format.encode(rows) if same else llama_cpp.encode(rows, stored, np.ones(tensor.width, np.float32))
            )
            writer.write(tensor.name, [blocks])
    return path


def test_llama_cpp_is_asked_for_types_that_gguf_does_not_have() -> None:
    known, asked = ggml_type(gguf.GGMLQuantizationType.Q4_K), ggml_type(Q2_0)
    assert isinstance(known, gguf.GGMLQuantizationType) and block_of(known) == (256, 144)
    if Q2_0 not in gguf.GGML_QUANT_SIZES:
        assert isinstance(asked, EngineType) and asked.name == "Q2_0" and asked == Q2_0
    assert asked is not None and block_of(asked) == (64, 18)
    for number in (31, 1000, 1 << 31):  # removed from llama.cpp, never there, not even a number of its kind
        assert ggml_type(number) is None


@NEW_TYPES
def test_whatever_needs_no_decoding_works(
    tiny_llama: Path, tmp_path: Path, run_thriftbit: RunThriftbit, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tiny_llama, tmp_path / f"tiny-Q{number - 40}_0.gguf", number)
    name = f"Q{number - 40}_0"
    inspected = json.loads(run_thriftbit("inspect", path, "--json").stdout)
    assert name in {tensor["type"] for tensor in inspected["tensors"]}
    fitted = json.loads(run_thriftbit("fit", path, "--json").stdout)
    assert [option["precision"] for option in fitted["options"]] == [name]
    assert name in run_thriftbit("find", "--local").stdout
    speed = run_thriftbit("measure", path, "--only", "speed", "--answer-tokens", "8", "--prompt-tokens", "8", "--json")
    assert "decode_rate" in speed.stdout
    with thriftbit.Engine(path) as engine:
        assert engine.generate("a", max_tokens=2).generated_tokens == 2


def test_files_in_such_types_are_told_apart_by_their_weights(tiny_llama: Path, tmp_path: Path) -> None:
    from thriftbit.sources.gguf_source import open_gguf

    path = write(tiny_llama, tmp_path / "one.gguf", Q2_0)
    first = open_gguf(path).fingerprint
    info = next(info for info in read_gguf(path).tensors if info.ggml_type == Q2_0)
    changed = bytearray(path.read_bytes())
    changed[info.offset_bytes + 5] ^= 1
    (tmp_path / "two.gguf").write_bytes(changed)
    assert open_gguf(tmp_path / "two.gguf").fingerprint != first


def test_llama_cpp_is_asked_for_architectures() -> None:
    assert llama_cpp_knows("llama")
    newer = next(name for name in ("laguna", "kimi-k3", "qwen4exp") if name not in gguf.MODEL_ARCH_NAMES.values())
    assert llama_cpp_knows(newer)
    assert not llama_cpp_knows("brandnew")
