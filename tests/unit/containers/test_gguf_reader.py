"""Files made by the `gguf` package, read by ours."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy as np
import psutil
import pytest

from thriftbit.containers.gguf_reader import GGUFFile, read_gguf
from thriftbit.errors import ThriftbitError

WEIGHTS = {
    "token_embd.weight": np.arange(6 * 64, dtype=np.float32).reshape(6, 64),
    "blk.0.ffn_down_exps.weight": np.arange(2 * 3 * 32, dtype=np.float16).reshape(2, 3, 32),
    "output_norm.weight": np.ones(7, np.float32),
}
QUANTIZED = np.arange(4 * 68, dtype=np.uint8).reshape(4, 68)  # Q8_0: two blocks of 34 bytes a row


def write_sample(path: Path, endianess: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE) -> Path:
    writer = gguf.GGUFWriter(path, "llama", endianess=endianess)
    writer.add_uint8("t.uint8", 200)
    writer.add_int8("t.int8", -100)
    writer.add_uint16("t.uint16", 60_000)
    writer.add_int16("t.int16", -30_000)
    writer.add_uint32("t.uint32", 4_000_000_000)
    writer.add_int32("t.int32", -2_000_000_000)
    writer.add_uint64("t.uint64", 1 << 63)
    writer.add_int64("t.int64", -(1 << 62))
    writer.add_float32("t.float32", 1.5)
    writer.add_float64("t.float64", 1e300)
    writer.add_bool("t.bool", True)
    writer.add_string("t.string", "naïve 🌍")
    writer.add_array("t.texts", ["", "a", "▁the"])
    writer.add_array("t.integers", [1, -2, 3])
    writer.add_array("t.floats", [0.5, 0.25])
    writer.add_array("t.bools", [True, False, True])
    for name, weights in WEIGHTS.items():
        writer.add_tensor(name, weights)
    writer.add_tensor("blk.0.attn_q.weight", QUANTIZED, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def sample(tmp_path: Path) -> GGUFFile:
    return read_gguf(write_sample(tmp_path / "sample.gguf"))


def test_numbers_keep_their_exact_type(sample: GGUFFile) -> None:
    expected = {
        "t.uint8": np.uint8(200),
        "t.int8": np.int8(-100),
        "t.uint16": np.uint16(60_000),
        "t.int16": np.int16(-30_000),
        "t.uint32": np.uint32(4_000_000_000),
        "t.int32": np.int32(-2_000_000_000),
        "t.uint64": np.uint64(1 << 63),
        "t.int64": np.int64(-(1 << 62)),
        "t.float32": np.float32(1.5),
        "t.float64": np.float64(1e300),
    }
    for key, value in expected.items():
        assert sample.metadata[key] == value
        assert type(sample.metadata[key]) is type(value)
    assert sample.metadata["t.bool"] is True


def test_text_and_arrays(sample: GGUFFile) -> None:
    assert sample.metadata["general.architecture"] == "llama"
    assert sample.metadata["t.string"] == "naïve 🌍"
    assert sample.metadata["t.texts"] == ["", "a", "▁the"]
    for key, expected in (
        ("t.integers", np.array([1, -2, 3], np.int32)),
        ("t.floats", np.array([0.5, 0.25], np.float32)),
        ("t.bools", np.array([True, False, True])),
    ):
        array = sample.metadata[key]
        assert isinstance(array, np.ndarray)
        assert array.dtype == expected.dtype
        assert np.array_equal(array, expected)


def test_tensors_are_where_gguf_finds_them(sample: GGUFFile) -> None:
    reference = gguf.GGUFReader(sample.path)
    assert sample.version == 3
    assert sample.data_offset == reference.data_offset
    assert [info.name for info in sample.tensors] == [tensor.name for tensor in reference.tensors]
    for info, tensor in zip(sample.tensors, reference.tensors, strict=True):
        assert info.shape == tuple(tensor.shape.tolist()[::-1])
        assert info.ggml_type == tensor.tensor_type
        assert (info.offset_bytes, info.size_bytes) == (tensor.data_offset, tensor.n_bytes)
        assert sample.read(info).tobytes() == tensor.data.tobytes()


def test_rows_of_a_tensor(sample: GGUFFile) -> None:
    by_name = {info.name: info for info in sample.tensors}
    quantized = by_name["blk.0.attn_q.weight"]
    assert (quantized.shape, quantized.row_bytes) == ((4, 64), 68)
    assert np.array_equal(sample.read(quantized, 1, 3), QUANTIZED[1:3])
    assert sample.read(quantized, 2, 2).shape == (0, 68)
    experts = by_name["blk.0.ffn_down_exps.weight"]
    assert experts.rows == 6
    assert np.array_equal(sample.read(experts, 2, 5).view(np.float16), WEIGHTS[experts.name].reshape(6, 32)[2:5])
    assert sample.read(by_name["output_norm.weight"]).shape == (1, 28)
    for start, stop in ((-1, 2), (3, 2), (0, 5)):
        with pytest.raises(IndexError):
            sample.read(quantized, start, stop)


def test_threads_read_at_once_and_leave_no_file_open(sample: GGUFFile) -> None:
    handles = psutil.Process().num_handles if os.name == "nt" else psutil.Process().num_fds
    info = sample.tensors[0]
    expected = WEIGHTS[info.name]
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda i: sample.read(info, i % 6, i % 6 + 1), range(6)))
        before = handles()
        rows += pool.map(lambda i: sample.read(info, i % 6, i % 6 + 1), range(600))
    for i, row in enumerate(rows):
        assert np.array_equal(row.view(np.float32)[0], expected[i % 6])
    assert handles() <= before


def test_file_that_changes_after_opening(sample: GGUFFile) -> None:
    os.truncate(sample.path, sample.data_offset + 10)
    with pytest.raises(ThriftbitError, match=r"sample\.gguf: tensor 'token_embd.weight' ends early"):
        sample.read(sample.tensors[0])
    sample.path.unlink()
    with pytest.raises(ThriftbitError, match=r"sample\.gguf: cannot be read"):
        sample.read(sample.tensors[0])


def test_alignment_of_the_file_is_honoured(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "aligned.gguf", "llama")
    writer.add_custom_alignment(256)
    for name in ("a", "b"):
        writer.add_tensor(name, np.full(3, ord(name), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    aligned = read_gguf(tmp_path / "aligned.gguf")
    assert aligned.alignment == 256
    assert aligned.tensors[1].offset_bytes == aligned.data_offset + 256
    assert np.array_equal(aligned.read(aligned.tensors[1]).view(np.float32), [[98, 98, 98]])


def test_version_2_reads_like_version_3(tmp_path: Path, sample: GGUFFile) -> None:
    raw = bytearray(sample.path.read_bytes())
    raw[4] = 2
    (tmp_path / "older.gguf").write_bytes(raw)
    older = read_gguf(tmp_path / "older.gguf")
    assert older.version == 2
    assert older.tensors == sample.tensors


def test_big_endian_is_named_and_its_header_can_be_read(tmp_path: Path, sample: GGUFFile) -> None:
    path = write_sample(tmp_path / "swapped.gguf", gguf.GGUFEndian.BIG)
    with pytest.raises(ThriftbitError, match=r"swapped\.gguf: it is big-endian"):
        read_gguf(path)
    swapped = read_gguf(path, any_byte_order=True)
    assert swapped.big_endian
    assert swapped.tensors == sample.tensors
    for key, value in sample.metadata.items():
        assert type(swapped.metadata[key]) is type(value)
        assert np.array_equal(swapped.metadata[key], value)
        assert getattr(swapped.metadata[key], "dtype", None) == getattr(value, "dtype", None)
    with pytest.raises(ThriftbitError, match="big-endian"):
        swapped.read(swapped.tensors[0])


def test_file_without_tensors(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "vocabulary.gguf", "llama")
    writer.add_token_list([b"a", b"\xff\xfe", "b"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    vocabulary = read_gguf(tmp_path / "vocabulary.gguf")
    assert vocabulary.tensors == ()
    tokens = vocabulary.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    assert [token.encode("utf-8", "surrogateescape") for token in tokens] == [b"a", b"\xff\xfe", b"b"]


def test_large_vocabulary_reads_in_under_a_second(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "large.gguf", "llama")
    size = 262_144
    writer.add_token_list([f"token{i}" for i in range(size)])
    writer.add_token_scores([float(i) for i in range(size)])
    writer.add_token_types([1] * size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    started = time.process_time()
    large = read_gguf(tmp_path / "large.gguf")
    assert time.process_time() - started < 1.0
    assert large.metadata["tokenizer.ggml.tokens"][-1] == f"token{size - 1}"  # type: ignore[index]
