"""One safetensors file, read by row ranges.

The format is small enough to read ourselves: eight bytes of header length, a JSON header that gives every tensor its
dtype, shape and byte range, then the bytes. Our own reader, because the safetensors package maps the whole file into
memory (so that resident memory grows with the model) and has no numpy type for BF16. Everything in the header is
checked before any of it is used; what is accepted is exactly what the specification allows.

Every read opens the file, reads its range and closes it again. That costs microseconds against the milliseconds of a
read, works from many threads and on every platform, and leaves nothing to close.

Specification: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from thriftbit.errors import ThriftbitError, shown
from thriftbit.sources.json_object import open_regular, parse_json_object
from thriftbit.sources.tensor import FloatArray, Tensor

HEADER_LIMIT_BYTES = 32 << 20  # about 250,000 tensors in one file; the specification's own limit is 100 MB
MAXIMUM_RANK = 8
NAME_LIMIT = 500  # characters; keeps error messages readable

# Every dtype of the format, with its size in bits: all can be listed, the ones below can be read as weights.
DTYPE_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip


def _widen_bfloat16(raw: NDArray[Any]) -> FloatArray:
    wide = raw.astype(np.uint32)  # bfloat16 is the upper half of a float32
    wide <<= 16
    return wide.view(np.float32)


def _to_float32(raw: NDArray[Any]) -> FloatArray:
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which the encoder refuses by name
        return raw.astype(np.float32, copy=False)


# dtype -> (how numpy reads the bytes, how they become float32)
READABLE: dict[str, tuple[str, Callable[[NDArray[Any]], FloatArray]]] = {
    "F32": ("<f4", _to_float32),
    "F16": ("<f2", _to_float32),
    "BF16": ("<u2", _widen_bfloat16),
    "F64": ("<f8", _to_float32),
}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """-> the tensors of the file, in the order of their bytes; a tensor of shape () is given as one row of one weight

    Only the header is read here. Raises ThriftbitError for a file that breaks the format in any way; reading a tensor
    raises it for a dtype that does not hold plain weights, or when the file has changed since.
    """
    with open_regular(path) as file:
        return read_header(path, file, os.fstat(file.fileno()).st_size)


def read_header(path: Path, file: BinaryIO, file_bytes: int) -> dict[str, Tensor]:
    """The same from anything that can be read, a file on a server for instance; only its beginning is. path: what
    errors call it, and what the tensors will be read from."""
    prefix = file.read(8)
    if len(prefix) < 8:
        raise _broken(path, f"it is only {file_bytes} bytes long")
    if prefix == b"version ":
        raise _broken(path, "it is the Git LFS pointer to one")
    (header_bytes,) = struct.unpack("<Q", prefix)
    if header_bytes > file_bytes - 8:
        raise _broken(path, f"its header should be {header_bytes} bytes long and the file is {file_bytes}")
    if header_bytes > HEADER_LIMIT_BYTES:
        raise _broken(path, f"its header claims {header_bytes} bytes, more than any model needs")
    header = file.read(header_bytes)
    if not header.startswith(b"{"):
        raise _broken(path, "its header is not a JSON object")
    entries = parse_json_object(header, f"the header of {path}")
    _check_annotations(path, entries.pop("__metadata__", {}))

    data_start = 8 + header_bytes
    ranges = {name: _checked_entry(path, name, entry) for name, entry in entries.items()}
    ordered = sorted(ranges.items(), key=lambda item: item[1][2:])
    position = 0
    for name, (_, _, start, stop) in ordered:
        if start != position:
            raise _broken(path, f"{name!r} {'overlaps another tensor' if start < position else 'comes after a hole'}")
        position = stop
    if data_start + position != file_bytes:
        raise _broken(path, f"its tensors end at byte {data_start + position} and the file is {file_bytes} bytes long")
    return {name: _tensor(path, name, dtype, shape, data_start + start) for name, (dtype, shape, start, _) in ordered}


def _checked_entry(path: Path, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """-> dtype, shape, first byte and end of the tensor's data, all consistent with each other"""
    if len(name) > NAME_LIMIT:
        raise _broken(path, f"it names a tensor {shown(name)}")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _broken(path, f"the entry of {name!r} is not dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _broken(path, f"{name!r} has the unknown dtype {shown(dtype)}")
    # The rank and size limits come before the product, which would otherwise take minutes for a forged shape.
    if not isinstance(shape, list) or len(shape) > MAXIMUM_RANK or not all(map(_is_size, shape)):
        raise _broken(path, f"{name!r} has the impossible shape {shown(shape)}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise _broken(path, f"{name!r} has the impossible data_offsets {shown(offsets)}")
    start, stop = offsets
    if math.prod(shape) * DTYPE_BITS[dtype] != (stop - start) * 8:
        raise _broken(path, f"{name!r} is {dtype} of shape {shape}, which does not take {stop - start} bytes")
    if 0 in shape:
        raise ThriftbitError(
            f"{path}: {name!r} is empty (shape {shape}): the checkpoint was saved without gathering its weights, "
            "as DeepSpeed ZeRO-3 does; save it again with all weights gathered"
        )
    return dtype, tuple(shape), start, stop


def _tensor(path: Path, name: str, dtype: str, shape: tuple[int, ...], offset: int) -> Tensor:
    shape = shape or (1,)
    if dtype not in READABLE:
        return Tensor(name, shape, dtype, partial(_refuse, path, name, dtype))
    rows, width = math.prod(shape[:-1]), shape[-1]
    return Tensor(name, shape, dtype, partial(_read_rows, path, name, dtype, offset, rows, width))


def _read_rows(
    path: Path, name: str, dtype: str, offset: int, rows: int, width: int, start: int, stop: int
) -> FloatArray:
    """-> float32 (stop - start, width), at most three times the bytes of that in memory on the way"""
    if not 0 <= start <= stop <= rows:
        raise IndexError(f"rows {start} to {stop} of {name!r}, which has {rows}")
    storage, convert = READABLE[dtype]
    row_bytes = width * np.dtype(storage).itemsize
    raw = np.empty((stop - start) * row_bytes, np.uint8)
    with open_regular(path) as file:
        file.seek(offset + start * row_bytes)
        if file.readinto(raw.data) != raw.nbytes:
            raise ThriftbitError(f"{path} ends inside {name!r}: the file changed while it was being read")
    return convert(raw.view(storage).reshape(-1, width))


def _refuse(path: Path, name: str, dtype: str, start: int, stop: int) -> FloatArray:
    raise ThriftbitError(
        f"{path}: {name!r} is stored as {dtype}, which is not plain weights; Thriftbit reads {', '.join(READABLE)}. "
        "Use the unquantized original of the model"
    )


def _check_annotations(path: Path, annotations: Any) -> None:
    if not isinstance(annotations, dict) or not all(isinstance(value, str) for value in annotations.values()):
        raise _broken(path, "its __metadata__ is not a map of strings")


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _broken(path: Path, what: str) -> ThriftbitError:
    return ThriftbitError(f"{path} is not a whole safetensors file: {what}. Download or save it again")
