"""Files made by us, read by the `gguf` package and by llama.cpp's own reader."""

import ctypes
import os
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import pytest
import xllamacpp.xllamacpp

from thriftbit.containers.atomic_file import PIECE_BYTES
from thriftbit.containers.entry import Entry
from thriftbit.containers.gguf_reader import read_gguf
from thriftbit.containers.gguf_writer import GGUFWriter, layout
from thriftbit.errors import ThriftbitError
from thriftbit.formats import format_named

F32, Q8_0 = format_named("F32"), format_named("Q8_0")

METADATA = {
    "llama.block_count": np.uint32(4),
    "llama.rope.freq_base": np.float32(1e4),
    "general.architecture": "llama",
    "general.name": "Müller’s 🌍",
    "t.bool": True,
    "t.numpy_bool": np.bool_(False),
    "t.int64": np.int64(-5),
    "t.float64": np.float64(0.1),
    "tokenizer.ggml.tokens": ["<s>", "", "\udcff", "▁the"],
    "tokenizer.ggml.scores": np.array([0, -1.5, 2, 3], np.float32),
    "t.bools": np.array([True, False]),
    "t.empty": np.array([], np.int32),
}
ENTRIES = (
    Entry("token_embd.weight", (5, 64), Q8_0),
    Entry("blk.0.ffn_up_exps.weight", (2, 3, 32), Q8_0),
    Entry("output_norm.weight", (7,), F32),
)
CONTENT = {entry.name: np.arange(entry.size_bytes).astype(np.uint8) for entry in ENTRIES}


def write(path: Path, metadata: Mapping[str, object] = METADATA) -> Path:
    with GGUFWriter(path, layout(metadata, ENTRIES)) as writer:  # type: ignore[arg-type]
        for entry in ENTRIES:
            writer.write(entry.name, np.array_split(CONTENT[entry.name], 3))
    return path


def test_layout_is_exact_before_anything_is_written(tmp_path: Path) -> None:
    planned = layout(METADATA, ENTRIES)
    raw = write(tmp_path / "a.gguf").read_bytes()
    assert len(raw) == planned.file_size_bytes
    assert raw.startswith(planned.header)
    for entry, offset in zip(planned.entries, planned.offsets_bytes, strict=True):
        assert offset % 32 == 0
        assert raw[offset : offset + entry.size_bytes] == CONTENT[entry.name].tobytes()


def test_gguf_reads_it(tmp_path: Path) -> None:
    reference = gguf.GGUFReader(write(tmp_path / "a.gguf"))
    for key, value in METADATA.items():
        if key != "tokenizer.ggml.tokens":
            contents = reference.fields[key].contents()
            assert contents == (value.tolist() if isinstance(value, np.generic | np.ndarray) else value)
    parts = reference.fields["tokenizer.ggml.tokens"]
    assert [bytes(parts.parts[i]) for i in parts.data] == [b"<s>", b"", b"\xff", "▁the".encode()]
    assert next(key for key in reference.fields if not key.startswith("GGUF.")) == "general.architecture"
    for entry, tensor in zip(ENTRIES, reference.tensors, strict=True):
        assert tensor.name == entry.name
        assert tuple(tensor.shape.tolist()[::-1]) == entry.shape
        assert tensor.tensor_type.name == entry.format.name
        assert tensor.data.tobytes() == CONTENT[entry.name].tobytes()


def test_same_bytes_as_the_gguf_package(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "llama")
    writer.add_block_count(4)
    writer.add_array("t.texts", ["a", "bc"])
    for entry in ENTRIES:
        rows = CONTENT[entry.name].reshape(*entry.shape[:-1], -1)
        if entry.format is F32:
            writer.add_tensor(entry.name, rows.view(np.float32))
        else:
            writer.add_tensor(entry.name, rows, raw_dtype=gguf.GGMLQuantizationType[entry.format.name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    metadata = {"general.architecture": "llama", "llama.block_count": np.uint32(4), "t.texts": ["a", "bc"]}
    ours = write(tmp_path / "ours.gguf", metadata).read_bytes()
    assert ours == (tmp_path / "theirs.gguf").read_bytes()


def test_llama_cpp_reads_it(tmp_path: Path) -> None:
    class Parameters(ctypes.Structure):
        _fields_ = (("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p))

    library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    for name, result in {
        "gguf_init_from_file": ctypes.c_void_p,
        "gguf_get_tensor_name": ctypes.c_char_p,
        "gguf_get_data_offset": ctypes.c_size_t,
        "gguf_get_tensor_offset": ctypes.c_size_t,
        "gguf_get_tensor_size": ctypes.c_size_t,
        "gguf_get_n_kv": ctypes.c_int64,
        "gguf_get_n_tensors": ctypes.c_int64,
    }.items():
        getattr(library, name).restype = result
    planned = layout(METADATA, ENTRIES)
    path = os.fsencode(write(tmp_path / "a.gguf"))
    header = ctypes.c_void_p(library.gguf_init_from_file(path, Parameters(True, None)))
    assert header
    try:
        assert library.gguf_get_n_kv(header) == len(METADATA)
        assert library.gguf_get_n_tensors(header) == len(ENTRIES)
        data_offset = library.gguf_get_data_offset(header)
        for i, entry in enumerate(ENTRIES):
            index = ctypes.c_int64(i)
            assert library.gguf_get_tensor_name(header, index) == entry.name.encode()
            assert library.gguf_get_tensor_size(header, index) == entry.size_bytes
            assert data_offset + library.gguf_get_tensor_offset(header, index) == planned.offsets_bytes[i]
    finally:
        library.gguf_free(header)


def test_round_trip_through_our_reader(tmp_path: Path) -> None:
    file = read_gguf(write(tmp_path / "a.gguf"))
    assert set(file.metadata) == set(METADATA)
    for key, value in METADATA.items():
        assert np.array_equal(file.metadata[key], value)
        assert getattr(file.metadata[key], "dtype", None) == (
            None if key == "t.numpy_bool" else getattr(value, "dtype", None)
        )
    for info in file.tensors:
        assert file.read(info).tobytes() == CONTENT[info.name].tobytes()


def test_alignment_of_the_metadata_is_honoured(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", {"general.alignment": np.uint32(128)})
    tensors = gguf.GGUFReader(path).tensors
    assert all(tensor.data_offset % 128 == 0 for tensor in tensors)
    assert [tensor.data.tobytes() for tensor in tensors] == [content.tobytes() for content in CONTENT.values()]


def test_writes_with_constant_memory(tmp_path: Path) -> None:
    entry = Entry("big.weight", (32_768, 1024), Q8_0)  # 34 MiB
    chunk = np.zeros((64, Q8_0.row_bytes(1024)), np.uint8)
    planned = layout({"general.architecture": "llama"}, [entry])
    tracemalloc.start()
    with GGUFWriter(tmp_path / "big.gguf", planned) as writer:
        writer.write(entry.name, (chunk for _ in range(0, 32_768, 64)))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < PIECE_BYTES + (1 << 20)  # of 36 MB
    assert (tmp_path / "big.gguf").stat().st_size == planned.file_size_bytes


@pytest.mark.parametrize(
    ("name", "chunks", "message"),
    [
        ("output_norm.weight", [CONTENT["output_norm.weight"]], "where the layout has 'token_embd.weight'"),
        ("token_embd.weight", [CONTENT["token_embd.weight"][:-1]], "1 of 340 bytes were not given"),
        ("token_embd.weight", [CONTENT["token_embd.weight"], np.zeros(2, np.uint8)], "2 bytes too many"),
        ("token_embd.weight", [np.zeros(85, np.float32)], "float32 in place of bytes"),
        ("token_embd.weight", [CONTENT["token_embd.weight"]], "bytes were written"),  # and then no other tensor
    ],
)
def test_every_tensor_gets_exactly_its_bytes(tmp_path: Path, name: str, chunks: list[np.ndarray], message: str) -> None:
    with (
        pytest.raises(ValueError, match=message),
        GGUFWriter(tmp_path / "a.gguf", layout(METADATA, ENTRIES)) as writer,
    ):
        writer.write(name, chunks)
    assert list(tmp_path.iterdir()) == []


def test_one_tensor_too_many(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="'extra' was written where the layout has its end"),
        GGUFWriter(tmp_path / "a.gguf", layout({}, [])) as writer,
    ):
        writer.write("extra", [])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (Entry("x" * 64, (32,), F32), "1 to 63 printable bytes"),
        (Entry("é" * 32, (32,), F32), "1 to 63 printable bytes"),
        (Entry("", (32,), F32), "1 to 63 printable bytes"),
        (Entry("a\nb", (32,), F32), "1 to 63 printable bytes"),
        (Entry("a", (1, 1, 1, 1, 32), F32), "cannot hold the shape"),
        (Entry("a", (), F32), "cannot hold the shape"),
        (Entry("a", (0, 32), F32), "cannot hold the shape"),
        (Entry("a", (2, 33), Q8_0), "tensor 'a': rows of 33 weights do not divide"),
        (ENTRIES[2], "is there twice"),
    ],
)
def test_tensors_that_gguf_cannot_hold(entry: Entry, message: str) -> None:
    with pytest.raises(ThriftbitError, match=message):
        layout(METADATA, [ENTRIES[2], entry])


@pytest.mark.parametrize(
    "value", [3, 0.5, np.float16(1), np.zeros((2, 2), np.float32), None, b"bytes", np.array(["text"]), [1, 2]]
)
def test_metadata_without_a_gguf_type(value: object) -> None:
    with pytest.raises(TypeError):
        layout({"key": value}, [])  # type: ignore[dict-item]


@pytest.mark.parametrize("alignment", [np.uint32(0), np.uint32(24), np.uint64(32)])
def test_alignment_that_gguf_does_not_allow(alignment: np.generic) -> None:
    with pytest.raises(ValueError, match=r"general\.alignment"):
        layout({"general.alignment": alignment}, [])
