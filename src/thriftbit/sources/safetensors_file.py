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
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from thriftbit.containers.regular_files import open_regular
from thriftbit.containers.unfinished_download import how_to_finish
from thriftbit.errors import ThriftbitError, shown
from thriftbit.sources.json_object import parse_json_object
from thriftbit.sources.tensor import FloatArray, Tensor

HEADER_LIMIT_BYTES = 32 << 20  # about 250,000 tensors in one file; the specification's own limit is 100 MB
MAXIMUM_RANK = 8
_SHORT_ROW_BYTES, _STRIPE_BYTES = 32 << 10, 1 << 20
NAME_LIMIT = 500  # characters; keeps error messages readable

# Every dtype of the format, with its size in bits. All can be listed; `READABLE` says which are plain weights.
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


# dtype -> how numpy reads the bytes, for all whose numbers are whole bytes
STORAGE = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
    "BOOL": "u1", "F8_E4M3": "u1", "F8_E5M2": "u1", "F8_E4M3FNUZ": "u1", "F8_E5M2FNUZ": "u1", "F8_E8M0": "u1",
}  # fmt: skip

# dtype of plain weights -> how they become float32
READABLE: dict[str, Callable[[NDArray[Any]], FloatArray]] = {
    "F32": _to_float32, "F16": _to_float32, "BF16": _widen_bfloat16, "F64": _to_float32,
}  # fmt: skip


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of the file, in the order of their bytes; a tensor of shape () is given as one row of one
    weight.

    Only the header is read here. Raises ThriftbitError for a file that breaks the format in any way; reading a tensor
    raises it for a dtype that does not hold plain weights, or when the file has changed since."""
    with open_regular(path) as file:
        return read_header(path, file, os.fstat(file.fileno()).st_size)


def read_header(path: Path, file: BinaryIO, file_bytes: int) -> dict[str, Tensor]:
    """Return the tensors of any readable stream, for example of a file on a server. Only the header is read.

    path: what errors call the file, and where the tensors will be read from. file_bytes: the size of the whole file."""
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
    """Return dtype, shape, first byte and end of the tensor's data, all consistent with each other."""
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


@dataclass(frozen=True)
class StoredRows:
    """How a tensor is read from its file. Called with (start, stop), it gives these rows as float32, if the dtype holds
    plain weights. The other methods give what is stored, for weights that are packed: see `packed/`.

    path, name, dtype: as errors say them. offset: the first byte in the file. rows, width: of the stored tensor.
    """

    path: Path
    name: str
    dtype: str
    offset: int
    rows: int
    width: int

    def __call__(self, start: int, stop: int) -> FloatArray:
        """Return float32 (stop - start, width). Takes at most three times the memory of the result."""
        if self.dtype not in READABLE:
            raise ThriftbitError(
                f"{self.path}: {self.name!r} is stored as {self.dtype}, and nothing in the folder says how these "
                f"numbers become weights; weights are {', '.join(READABLE)}. Download the whole model again"
            )
        return READABLE[self.dtype](self.stored(start, stop))

    def stored(self, start: int, stop: int) -> NDArray[Any]:
        """Return (stop - start, width), as stored: numpy's type of that name, or uint8 and uint16 for small floats."""
        if not 0 <= start <= stop <= self.rows:
            raise IndexError(f"rows {start} to {stop} of {self.name!r}, which has {self.rows}")
        return self._read(self.offset + start * self._row_bytes, (stop - start, self.width))

    def stored_columns(self, start: int, stop: int, first: int = 0, last: int | None = None) -> NDArray[Any]:
        """Return (last - first, stop - start), as stored: columns start to stop of these rows, all of them by default.

        Short rows are read whole, several at a time, which is faster than seeking to each of them. Of long rows, only
        these columns are read. Neither takes much more memory than the result."""
        last = self.rows if last is None else last
        if not (0 <= start <= stop <= self.width and 0 <= first <= last <= self.rows):
            raise IndexError(f"columns {start} to {stop} of {self.name!r}, which has {self.width}")
        if (start, stop) == (0, self.width):
            return self.stored(first, last)
        columns = np.empty((last - first, stop - start), self._storage)
        if self._row_bytes <= _SHORT_ROW_BYTES:
            step = _STRIPE_BYTES // self._row_bytes
            for top in range(first, last, step):
                bottom = min(top + step, last)
                columns[top - first : bottom - first] = self.stored(top, bottom)[:, start:stop]
            return columns
        with open_regular(self.path) as file:
            for row, place in enumerate(range(first, last)):
                file.seek(self.offset + place * self._row_bytes + start * self._storage.itemsize)
                self._fill(file, columns[row])
        return columns

    def stored_items(self, start: int, stop: int) -> NDArray[Any]:
        """Return (stop - start,), as stored: numbers start to stop of the whole tensor, row after row."""
        if not 0 <= start <= stop <= self.rows * self.width:
            raise IndexError(f"numbers {start} to {stop} of {self.name!r}, which has {self.rows * self.width}")
        return self._read(self.offset + start * self._storage.itemsize, (stop - start,))

    def _read(self, position: int, shape: tuple[int, ...]) -> NDArray[Any]:
        values = np.empty(shape, self._storage)
        with open_regular(self.path) as file:
            file.seek(position)
            self._fill(file, values)
        return values

    def _fill(self, file: BufferedReader, values: NDArray[Any]) -> None:
        if values.size and file.readinto(values.reshape(-1).view(np.uint8).data) != values.nbytes:
            raise ThriftbitError(f"{self.path} ends inside {self.name!r}: the file changed while it was being read")

    @property
    def _storage(self) -> np.dtype[Any]:
        storage = STORAGE.get(self.dtype)
        if storage is None:
            raise ThriftbitError(f"{self.path}: {self.name!r} is stored as {self.dtype}, which is not read here")
        return np.dtype(storage)

    @property
    def _row_bytes(self) -> int:
        return self.width * self._storage.itemsize


def _tensor(path: Path, name: str, dtype: str, shape: tuple[int, ...], offset: int) -> Tensor:
    shape = shape or (1,)
    return Tensor(name, shape, dtype, StoredRows(path, name, dtype, offset, math.prod(shape[:-1]), shape[-1]))


def _check_annotations(path: Path, annotations: Any) -> None:
    if not isinstance(annotations, dict) or not all(isinstance(value, str) for value in annotations.values()):
        raise _broken(path, "its __metadata__ is not a map of strings")


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _broken(path: Path, what: str) -> ThriftbitError:
    return ThriftbitError(f"{path} is not a whole safetensors file: {what}. {how_to_finish(path)}, or save it again")
