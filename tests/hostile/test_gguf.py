"""GGUF files by strangers: whatever the bytes, the answer is a valid file or one ThriftbitError, in little memory."""

import json
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from thriftbit.containers import gguf_reader, header_stream
from thriftbit.containers.gguf_reader import read_gguf
from thriftbit.errors import ThriftbitError
from thriftbit.inspection import inspect

UINT8, UINT32, FLOAT32, BOOL, STRING, ARRAY, INT64 = 0, 4, 6, 7, 8, 9, 11
F32, Q8_0 = 0, 8


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def key(name: str | bytes, value_type: int, content: bytes) -> bytes:
    return text(name) + struct.pack("<I", value_type) + content


def array(item_type: int, count: int, content: bytes) -> bytes:
    return struct.pack("<IQ", item_type, count) + content


def tensor(name: str | bytes, dimensions: tuple[int, ...], ggml_type: int, offset: int) -> bytes:
    head = text(name) + struct.pack("<I", len(dimensions))
    return head + struct.pack(f"<{len(dimensions)}QIQ", *dimensions, ggml_type, offset)


def gguf_bytes(
    keys: list[bytes],
    tensors: list[bytes],
    data: bytes = bytes(256),
    *,
    version: int = 3,
    tensor_count: int | None = None,
    key_count: int | None = None,
    alignment: int = 32,
) -> bytes:
    counts = (
        len(tensors) if tensor_count is None else tensor_count,
        len(keys) if key_count is None else key_count,
    )
    header = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(keys + tensors)
    return header + bytes(-len(header) % alignment) + data


KEYS = [
    key("general.architecture", STRING, text("llama")),
    key("llama.block_count", UINT32, struct.pack("<I", 2)),
    key("t.bools", ARRAY, array(BOOL, 3, b"\x01\x00\x07")),
    key("tokenizer.ggml.tokens", ARRAY, array(STRING, 3, text("a") + text(b"\xff") + text("▁the"))),
]
TENSORS = [tensor("a", (32, 2), Q8_0, 0), tensor("b", (3,), F32, 96)]
SMALL = gguf_bytes(KEYS, TENSORS, bytes(96 + 32))


def outcome(path: Path, raw: bytes) -> str | None:
    """Return what the error says; None if the file was taken, after every tensor was read."""
    path.write_bytes(raw)
    try:
        file = read_gguf(path, any_byte_order=True)
        if not file.big_endian:
            for info in file.tensors:
                assert file.read(info).nbytes == info.size_bytes
    except ThriftbitError as error:
        message = str(error)
        assert message.startswith(str(path))
        assert "\n" not in message
        assert len(message) < 500
        return message
    return None


def peak_bytes(action: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_small_file_is_sound(tmp_path: Path) -> None:
    assert outcome(tmp_path / "a.gguf", SMALL) is None


def test_every_prefix_is_refused(tmp_path: Path) -> None:
    needed = len(SMALL) - 32 + 12  # the padding after the last tensor may be missing
    for length in range(len(SMALL)):
        message = outcome(tmp_path / "a.gguf", SMALL[:length])
        assert (message is None) == (length >= needed), length


@settings(max_examples=800, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flips=st.lists(
        st.tuples(st.integers(0, len(SMALL) - 1), st.integers(1, 255)), min_size=1, max_size=4, unique_by=lambda f: f[0]
    )
)
@example(flips=[(15, 0x80)])  # the highest bit of the number of tensors
def test_flipped_bytes(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    raw = bytearray(SMALL)
    for position, bits in flips:
        raw[position] ^= bits
    # the reader's buffer is 1 MiB
    assert peak_bytes(lambda: outcome(tmp_path / "a.gguf", bytes(raw))) < 2 << 20


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tail=st.binary(max_size=200))
def test_noise_after_the_magic(tmp_path: Path, tail: bytes) -> None:
    outcome(tmp_path / "a.gguf", b"GGUF\x03\0\0\0" + tail)


HUGE = (1 << 63, (1 << 64) - 1, 1 << 40)


@pytest.mark.parametrize("huge", HUGE)
@pytest.mark.parametrize(
    "forge",
    [
        lambda n: gguf_bytes(KEYS, TENSORS, tensor_count=n),
        lambda n: gguf_bytes(KEYS, TENSORS, key_count=n),
        lambda n: gguf_bytes([struct.pack("<Q", n) + b"general"], []),
        lambda n: gguf_bytes([key("t", STRING, struct.pack("<Q", n) + b"text")], []),
        lambda n: gguf_bytes([key("t", ARRAY, array(UINT8, n, b"1234"))], []),
        lambda n: gguf_bytes([key("t", ARRAY, array(STRING, n, text("a")))], []),
        lambda n: gguf_bytes([key("t", ARRAY, array(STRING, 2, text("a") + struct.pack("<Q", n)))], []),
        lambda n: gguf_bytes([], [struct.pack("<Q", n) + b"name"]),
        lambda n: gguf_bytes([], [tensor("a", (n,), F32, 0)]),
        lambda n: gguf_bytes([], [tensor("a", (32, n), Q8_0, 0)]),
        lambda n: gguf_bytes([], [tensor("a", (n, n, n, n), F32, 0)]),
        lambda n: gguf_bytes([], [tensor("a", (32,), F32, n)]),
        lambda n: gguf_bytes([], [tensor("a", (32,), F32, n - 32)]),
    ],
)
def test_forged_numbers_allocate_nothing(tmp_path: Path, forge: Callable[[int], bytes], huge: int) -> None:
    messages = []
    assert peak_bytes(lambda: messages.append(outcome(tmp_path / "a.gguf", forge(huge)))) < 2 << 20
    assert messages[0] is not None


REFUSED = {
    "empty": (b"", "not a GGUF file: it is empty"),
    "something else": (b"\x7fELF....", r"not a GGUF file: it begins with b'\\x7fELF'"),
    "git lfs pointer": (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
    "zip": (b"PK\x03\x04....", "PyTorch checkpoint"),
    "old ggml": (b"tjgg\x03\0\0\0", "from before GGUF"),
    "byte-swapped magic": (b"FUGG\0\0\0\x03", "byte-swapped"),
    "web page": (b"<!DOCTYPE html>", "web page"),
    "version 1": (gguf_bytes(KEYS, TENSORS, version=1), "GGUF version 1; versions 2 and 3"),
    "version 4": (gguf_bytes(KEYS, TENSORS, version=4), "GGUF version 4; versions 2 and 3"),
    "key twice": (gguf_bytes([KEYS[0], KEYS[0]], []), "'general.architecture' is there twice"),
    "key without name": (gguf_bytes([key("", BOOL, b"\0")], [], bytes(99)), "metadata key 0 is 0 bytes long"),
    "key too long": (gguf_bytes([key("k" * 65536, BOOL, b"\0")], []), "metadata key 0 is 65,536 bytes long"),
    "long key twice": (
        gguf_bytes([key("k" * 9999, BOOL, b"\0")] * 2, []),
        r"metadata key 'k+\.\.\.k+' is there twice",
    ),
    "key not UTF-8": (gguf_bytes([key(b"\xff", BOOL, b"\0")], []), "metadata key 0 is not UTF-8"),
    "unknown value type": (gguf_bytes([key("t", 13, b"\0")], []), "'t' has type 13, which does not exist"),
    "unknown item type": (gguf_bytes([key("t", ARRAY, array(99, 0, b""))], []), "array of type 99"),
    "array of arrays": (gguf_bytes([key("t", ARRAY, array(ARRAY, 1, bytes(12)))], []), "array of arrays"),
    "alignment 0": (gguf_bytes([key("general.alignment", UINT32, bytes(4))], []), "must be a power of two"),
    "alignment 48": (
        gguf_bytes([key("general.alignment", UINT32, struct.pack("<I", 48))], []),
        "must be a power of two",
    ),
    "alignment a text": (gguf_bytes([key("general.alignment", STRING, text("32"))], []), "must be a power of two"),
    "tensor twice": (gguf_bytes([], [TENSORS[0], TENSORS[0]]), "tensor 'a' is there twice"),
    "tensor name of an escape code": (
        gguf_bytes([], [tensor("\x1b[2J", (3,), F32, 0)]),
        r"tensor 0 holds control characters: '\\x1b\[2J'",
    ),
    "tensor without dimensions": (gguf_bytes([], [tensor("a", (), F32, 0)], bytes(99)), "'a' has 0 dimensions"),
    "tensor with five": (gguf_bytes([], [tensor("a", (1,) * 5, F32, 0)]), "'a' has 5 dimensions"),
    "tensor with zero rows": (gguf_bytes([], [tensor("a", (3, 0), F32, 0)]), r"impossible shape \(0, 3\)"),
    "product that overflows": (gguf_bytes([], [tensor("a", (1 << 32, 1 << 32), F32, 0)]), "impossible shape"),
    "unknown tensor type": (
        gguf_bytes([], [tensor("a", (3,), 4, 0)]),
        "'a' has type 4, which the llama.cpp",
    ),
    "rows that are not whole blocks": (
        gguf_bytes([], [tensor("a", (33,), Q8_0, 0)]),
        "'a' has rows of 33, not a multiple of the 32 of Q8_0",
    ),
    "unaligned": (gguf_bytes([], [tensor("a", (3,), F32, 16)]), "'a' is not aligned to 32 bytes"),
    "past the end": (gguf_bytes([], [tensor("a", (64,), F32, 32)]), "'a' ends at byte"),
    "overlapping": (
        gguf_bytes([], [tensor("a", (16,), F32, 32), tensor("b", (8,), F32, 0), tensor("c", (1,), F32, 64)]),
        "tensors 'a' and 'c' overlap",
    ),
    "the same place twice": (
        gguf_bytes([], [tensor("a", (8,), F32, 0), tensor("b", (8,), F32, 0)]),
        "tensors 'a' and 'b' overlap",
    ),
}


@pytest.mark.parametrize(("raw", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_with_the_reason(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(raw)
    with pytest.raises(ThriftbitError, match=message):
        read_gguf(path)


def test_headers_beyond_the_limit_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a large file, a forged length may be shorter than what is left"""
    monkeypatch.setattr(header_stream, "HEADER_LIMIT_BYTES", 1 << 16)
    raw = gguf_bytes([key("t", ARRAY, array(UINT8, 1 << 20, b""))], [], bytes(1 << 21))
    message = outcome(tmp_path / "a.gguf", raw)
    assert message is not None
    assert "header larger than" in message


def test_more_tensors_than_any_model_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real header of tens of megabytes could make objects of gigabytes"""
    monkeypatch.setattr(gguf_reader, "TENSOR_LIMIT", 4)
    assert outcome(tmp_path / "a.gguf", SMALL) is None
    many = gguf_bytes(KEYS, [tensor(f"t{i}", (8,), F32, 32 * i) for i in range(5)])
    message = outcome(tmp_path / "a.gguf", many)
    assert message is not None
    assert "5 tensors are more than any model has" in message


def test_more_keys_than_any_model_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes a few bytes in the file, and reading and checking all of them takes minutes"""
    monkeypatch.setattr(gguf_reader, "KEY_LIMIT", 4)
    many = gguf_bytes([key(f"k{i}", UINT8, b"1") for i in range(5)], [])
    assert "5 metadata keys are more than any model has" in str(outcome(tmp_path / "a.gguf", many))


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "loop of links"])
def test_what_is_not_a_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.gguf"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop of links":
        path.symlink_to(tmp_path / "other.gguf")
        (tmp_path / "other.gguf").symlink_to(path)
    with pytest.raises(ThriftbitError, match=r"model\.gguf: (cannot be read|not a file)"):
        read_gguf(path)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(1, 255)), min_size=1, max_size=3))
@example(flips=[(SMALL.index(b"llama"), 0x80)])  # an architecture that is not UTF-8
def test_inspection_of_flipped_bytes(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    raw = bytearray(SMALL)
    for position, bits in flips:
        raw[position] ^= bits
    path = tmp_path / "a.gguf"
    path.write_bytes(raw)
    try:
        document = inspect(path).to_dict()
    except ThriftbitError:
        return
    json.dumps(document, allow_nan=False, ensure_ascii=False).encode()


WRONG_VALUES = {
    "flag": (BOOL, b"\x01"),
    "text": (STRING, text("text")),
    "not a number": (FLOAT32, struct.pack("<f", float("nan"))),
    "negative": (INT64, struct.pack("<q", -1)),
    "empty array": (ARRAY, array(UINT8, 0, b"")),
    "array of texts": (ARRAY, array(STRING, 1, text(b"\xff"))),
}
READ_KEYS = (
    "general.architecture",
    "general.name",
    "general.type",
    "general.finetune",
    "general.file_type",
    "general.quantization_version",
    "llama.block_count",
    "llama.context_length",
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.tokens",
    "tokenizer.chat_template",
    "quantize.imatrix.file",
    "quantize.imatrix.dataset",
    "thriftbit.version",
    "thriftbit.plan",
)


@pytest.mark.parametrize("read_key", READ_KEYS)
@pytest.mark.parametrize("value", WRONG_VALUES.values(), ids=WRONG_VALUES.keys())
def test_inspection_of_metadata_of_any_type(tmp_path: Path, read_key: str, value: tuple[int, bytes]) -> None:
    keys = {"general.architecture": KEYS[0], read_key: key(read_key, *value)}
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf_bytes(list(keys.values()), [tensor("token_embd.weight", (32, 2), Q8_0, 0), TENSORS[1]]))
    document = inspect(path).to_dict()
    assert document["parameters"] == 67
    json.dumps(document, allow_nan=False, ensure_ascii=False).encode()
