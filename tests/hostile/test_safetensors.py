"""Safetensors files that are cut, bent or forged: one ThriftbitError that names the file, and nothing else."""

from __future__ import annotations

import json
import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thriftbit.errors import ThriftbitError
from thriftbit.sources.safetensors_file import HEADER_LIMIT_BYTES, READABLE, read_safetensors

FIXTURE_ONCE = settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])


def packed(header: bytes | dict[str, Any], data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(dtype: str, shape: list[Any], start: int, stop: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


WHOLE = packed(
    {
        "__metadata__": {"format": "pt"},
        "a.weight": entry("F32", [2, 3], 0, 24),
        "b.weight": entry("BF16", [3, 2], 24, 36),
        "c.weight": entry("F16", [4], 36, 44),
        "steps": entry("I64", [1], 44, 52),
    },
    bytes(range(52)),
)


def read_everything(path: Path) -> None:
    """Opens the file and reads every weight; the caller's business is which exceptions may come out."""
    for tensor in read_safetensors(path).values():
        if tensor.source_dtype in READABLE:
            assert tensor.load().shape == (tensor.rows, tensor.width)


def test_the_whole_file_is_good(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(WHOLE)
    read_everything(path)
    assert len(read_safetensors(path)) == 4


def test_every_prefix_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for length in range(len(WHOLE)):
        path.write_bytes(WHOLE[:length])
        with pytest.raises(ThriftbitError, match=r"model\.safetensors"):
            read_safetensors(path)


def test_trailing_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(WHOLE + b"\0")
    with pytest.raises(ThriftbitError, match=r"end at byte \d+ and the file is \d+ bytes"):
        read_safetensors(path)


@FIXTURE_ONCE
@given(flips=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_flipped_bytes_are_refused_or_harmless(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    bent = bytearray(WHOLE)
    for position, value in flips:
        bent[position] = value
    path = tmp_path / "model.safetensors"
    path.write_bytes(bent)
    try:
        read_everything(path)
    except ThriftbitError as error:
        assert str(path) in str(error)


@FIXTURE_ONCE
@given(header=st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "w", "__metadata__"]), inner, max_size=4),
    max_leaves=12,
))  # fmt: skip
def test_any_json_is_refused_or_harmless(tmp_path: Path, header: Any) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(packed(json.dumps(header).encode()))
    try:
        read_everything(path)
    except ThriftbitError as error:
        assert str(path) in str(error)


# what is wrong -> (the file, what the error says)
FORGED: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "only 0 bytes"),
    "Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git LFS pointer"),
    "header longer than the file": (struct.pack("<Q", 1 << 63) + b"{}", "header should be"),
    "header of the largest length": (b"\xff" * 8 + b"{}", "header should be"),
    "empty header": (packed(b""), "not a JSON object"),
    "header that is a list": (packed(b"[]"), "not a JSON object"),
    "header after a space": (packed(b" {}"), "not a JSON object"),
    "header cut": (packed(b'{"w": {'), "not valid JSON"),
    "header not UTF-8": (packed(b'{"\xff": 1}'), "not valid JSON"),
    "header nested deeply": (packed(b'{"w":' + b"[" * 200_000), "nested too deeply"),
    "number of 5000 digits": (packed(b'{"w":' + b"9" * 5000 + b"}"), "not valid JSON"),
    "infinite shape": (packed(b'{"w":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,4]}}'), "not a JSON number"),
    "duplicate tensor": (
        packed(b'{"w":%s,"w":%s}' % ((json.dumps(entry("F32", [1], 0, 4)).encode(),) * 2), bytes(4)),
        "'w' appears twice",
    ),
    "entry that is no object": (packed({"w": 3}), "dtype, shape and data_offsets"),
    "entry without offsets": (packed({"w": {"dtype": "F32", "shape": [1]}}), "dtype, shape and data_offsets"),
    "entry with more": (packed({"w": entry("F32", [1], 0, 4) | {"x": 1}}, bytes(4)), "dtype, shape and data_offsets"),
    "annotations that are no strings": (packed({"__metadata__": {"format": 3}}), "not a map of strings"),
    "name of 100,000 characters": (packed({"w" * 100_000: entry("F32", [1], 0, 4)}, bytes(4)), "names a tensor"),
    "unknown dtype": (packed({"w": entry("F128", [1], 0, 16)}, bytes(16)), "'w' has the unknown dtype 'F128'"),
    "dtype that is a list": (packed({"w": entry([], [1], 0, 4)}, bytes(4)), "unknown dtype"),  # type: ignore[arg-type]
    "negative size": (packed({"w": entry("F32", [-1, -1], 0, 4)}, bytes(4)), "'w' has the impossible shape"),
    "fractional size": (packed({"w": entry("F32", [1.0], 0, 4)}, bytes(4)), "impossible shape"),
    "boolean size": (packed({"w": entry("F32", [True], 0, 4)}, bytes(4)), "impossible shape"),
    "shape of a million axes": (packed({"w": entry("F32", [1 << 62] * 1_000_000, 0, 4)}, bytes(4)), "impossible shape"),
    "product beyond 64 bits": (packed({"w": entry("F32", [1 << 32, 1 << 32], 0, 0)}), "does not take 0 bytes"),
    "product that wraps to fit": (packed({"w": entry("F32", [(1 << 62) + 1], 0, 4)}, bytes(4)), "does not take 4"),
    "petabytes": (packed({"w": entry("F32", [1 << 50], 0, 1 << 52)}), "tensors end at byte"),
    "offsets backwards": (packed({"w": entry("F32", [1], 4, 0)}, bytes(4)), "does not take -4 bytes"),
    "negative offsets": (packed({"w": entry("F32", [1], -4, 0)}, bytes(4)), "impossible data_offsets"),
    "three offsets": (packed({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}), "impossible data_offs"),
    "offsets outside the file": (packed({"w": entry("F32", [2], 0, 8)}, bytes(4)), "tensors end at byte"),
    "hole at the start": (packed({"w": entry("F32", [1], 4, 8)}, bytes(8)), "'w' comes after a hole"),
    "hole between": (
        packed({"v": entry("F32", [1], 0, 4), "w": entry("F32", [1], 8, 12)}, bytes(12)),
        "'w' comes after a hole",
    ),
    "overlap": (
        packed({"v": entry("F32", [2], 0, 8), "w": entry("F32", [1], 4, 8)}, bytes(8)),
        "'w' overlaps another tensor",
    ),
    "the same bytes twice": (
        packed({"v": entry("F32", [1], 0, 4), "w": entry("F32", [1], 0, 4)}, bytes(4)),
        "overlaps another tensor",
    ),
    "weights not gathered": (packed({"w": entry("BF16", [0], 0, 0)}), "saved without gathering"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORGED)
def test_forged_files_are_refused_with_the_reason_and_little_memory(tmp_path: Path, kind: str) -> None:
    content, reason = FORGED[kind]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ThriftbitError, match=r"model\.safetensors") as caught:
            read_safetensors(path)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(path))
    assert peak_bytes < 5 * len(content) + (2 << 20)


def test_a_huge_header_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", HEADER_LIMIT_BYTES + 1) + b"{")
        file.truncate(HEADER_LIMIT_BYTES + 100)  # sparse: takes no space
    tracemalloc.start()
    try:
        with pytest.raises(ThriftbitError, match="more than any model needs"):
            read_safetensors(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    loop, pipe, dangling = tmp_path / "loop", tmp_path / "pipe", tmp_path / "dangling"
    loop.symlink_to(loop)
    dangling.symlink_to(tmp_path / "nowhere")
    os.mkfifo(pipe)
    reasons = {
        loop: "symbolic links",
        dangling: "symbolic link to a file that is not there",
        pipe: "not a regular file",
        tmp_path: "not a regular file",
        tmp_path / "absent": "does not exist",
    }
    for path, reason in reasons.items():
        with pytest.raises(ThriftbitError, match=reason):
            read_safetensors(path)
