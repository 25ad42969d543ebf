"""Read GGUF files that may come from anywhere.

The reader of the `gguf` package maps the whole file, believes every number in the header and takes seconds for a large
vocabulary. This one reads the header as a stream through a small buffer and believes nothing: counts and lengths are
held against what is left of the file (`header_stream`), and every tensor is proven to lie inside the file, apart from
all others, before it is handed out.

Specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3. Left out: version 1 (32-bit
counts, gone since 2023), arrays of arrays, and the weights of big-endian files (their headers can be read).
"""

from __future__ import annotations

import math
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import numpy as np
from gguf import GGUFValueType

from thriftbit.containers.ggml_types import GGMLType, block_of, ggml_type
from thriftbit.containers.gguf_values import (
    MAGIC,
    MAX_DIMENSIONS,
    NUMBER_TYPES,
    MetadataValue,
    alignment_of,
    padded,
)
from thriftbit.containers.header_stream import HeaderStream, KnownTexts, damaged
from thriftbit.containers.unfinished_download import how_to_finish
from thriftbit.errors import ThriftbitError, shown
from thriftbit.formats.format import ByteArray

VERSIONS = (2, 3)

TENSOR_LIMIT = 1 << 18  # models with hundreds of experts, each apart, have 50,000 tensors
KEY_LIMIT = 1 << 14  # models have about a hundred keys of metadata
# The least that one entry takes: a name of one byte (8 + 1), then a key's type and a value of one byte, or a tensor's
# number of dimensions, one dimension, type and offset.
LEAST_KEY_BYTES = 9 + 4 + 1
LEAST_TENSOR_BYTES = 9 + 4 + 8 + 4 + 8

# What people hand over instead of a GGUF, by its first bytes.
OTHER_FILES = {
    b"": "it is empty",
    b"FUGG": "its magic is byte-swapped; write it again with an ordinary tool",
    b"lmgg": "it is a GGML file from before GGUF (2023); convert the original model again",
    b"fmgg": "it is a GGML file from before GGUF (2023); convert the original model again",
    b"tjgg": "it is a GGML file from before GGUF (2023); convert the original model again",
    b"PK\x03\x04": "it is a zip archive, perhaps a PyTorch checkpoint",
    b"vers": "it may be a Git LFS pointer; fetch the real file with `git lfs pull`",
    b"<!DO": "it is a web page; download the file itself",
}

BIG_ENDIAN = "it is big-endian (byte-swapped); make it again, or convert it with gguf's gguf-convert-endian"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies. shape: numpy order; offset_bytes: from the start of the file."""

    name: str
    shape: tuple[int, ...]
    ggml_type: GGMLType
    offset_bytes: int
    size_bytes: int

    @property
    def width(self) -> int:
        return self.shape[-1]

    @property
    def rows(self) -> int:
        return math.prod(self.shape[:-1])

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)

    @property
    def row_bytes(self) -> int:
        return self.size_bytes // self.rows

    @property
    def end_bytes(self) -> int:
        return self.offset_bytes + self.size_bytes


@dataclass(frozen=True)
class GGUFFile:
    """The header of a GGUF file, validated, and the way to the bytes of its tensors. Holds no file open.

    metadata: numbers as numpy scalars or 1-D arrays of the exact type, bools as bool, strings as str and list[str];
        bytes of strings that are not UTF-8 are kept as surrogate escapes.
    tensors: in the order of the header. data_offset: where tensor data begins, from the start of the file.
    """

    path: Path
    version: int
    big_endian: bool
    metadata: Mapping[str, MetadataValue]
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    alignment: int
    file_size_bytes: int

    def read(self, info: TensorInfo, start: int = 0, stop: int | None = None) -> ByteArray:
        """Return uint8 (stop - start, row_bytes): those rows of a tensor, all by default, in memory of their own.

        Safe to call from several threads. ThriftbitError if the file cannot be read or has changed.
        """
        stop = info.rows if stop is None else stop
        if not 0 <= start <= stop <= info.rows:
            raise IndexError(f"rows {start} to {stop} of {info.name}, which has {info.rows}")
        if self.big_endian:
            raise ThriftbitError(f"{self.path}: {BIG_ENDIAN}")
        rows = np.empty((stop - start, info.row_bytes), np.uint8)
        left = rows.reshape(-1).data
        with _reading(self.path), self.path.open("rb", buffering=0) as file:
            file.seek(info.offset_bytes + start * info.row_bytes)
            while left:
                count = file.readinto(left)
                if not count:
                    raise ThriftbitError(
                        f"{self.path}: tensor {shown(info.name)} ends early; the file changed meanwhile"
                    )
                left = left[count:]
        return rows


def read_gguf(path: str | Path, *, any_byte_order: bool = False, known: KnownTexts | None = None) -> GGUFFile:
    """Read and validate the header of one GGUF file (of one part, if it is split).

    any_byte_order: accept the header of a big-endian file too; its weights stay unreadable.
    known: vocabularies of files read before, to read this one faster.
    Raises ThriftbitError naming the file, the key or tensor, and what is wrong with it.
    """
    path = Path(path)
    with _reading(path), path.open("rb", buffering=1 << 20) as file:
        return read_header(path, file, file.seek(0, 2), any_byte_order=any_byte_order, known=known)


def read_header(
    path: Path,
    file: BinaryIO,
    file_size_bytes: int,
    *,
    any_byte_order: bool = False,
    known: KnownTexts | None = None,
) -> GGUFFile:
    """Read and validate a header from anything that can be read and sought, a file on a server for instance.

    path: what errors call it. Raises as `read_gguf` does.
    """
    file.seek(0)
    _check_magic(path, file.read(len(MAGIC)))
    stream = HeaderStream(path, file, file_size_bytes, known)
    version = _read_version(stream, any_byte_order)
    tensor_count = _entry_count(stream, "tensors", LEAST_TENSOR_BYTES, TENSOR_LIMIT)
    key_count = _entry_count(stream, "metadata keys", LEAST_KEY_BYTES, KEY_LIMIT)
    metadata = _read_metadata(stream, key_count)
    try:
        alignment = alignment_of(metadata)
    except ValueError as error:
        raise damaged(path, str(error)) from None
    unplaced = _read_tensor_infos(stream, tensor_count)
    data_offset = padded(stream.offset, alignment) if unplaced else stream.offset
    tensors = tuple(replace(info, offset_bytes=data_offset + info.offset_bytes) for info in unplaced)
    big_endian = stream.byte_order == "big"
    file_header = GGUFFile(
        path, version, big_endian, MappingProxyType(metadata), tensors, data_offset, alignment, file_size_bytes
    )
    _check_places(file_header)
    return file_header


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Operating system errors become ours; what is not a regular file (a pipe could wait forever) is refused."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ThriftbitError(f"{path}: not a file that can be read as GGUF")
        yield
    except OSError as error:
        raise ThriftbitError(f"{path}: cannot be read: {error.strerror}") from error


def _check_magic(path: Path, magic: bytes) -> None:
    if magic != MAGIC:
        reason = OTHER_FILES.get(magic, f"it begins with {magic!r}")
        raise ThriftbitError(f"{path}: not a GGUF file: {reason}")


def _read_version(stream: HeaderStream, any_byte_order: bool) -> int:
    version = stream.integer(4, "the version")
    swapped = int.from_bytes(version.to_bytes(4, "big"), "little")
    if swapped in VERSIONS:
        if not any_byte_order:
            raise ThriftbitError(f"{stream.path}: {BIG_ENDIAN}")
        stream.byte_order = "big"
        version = swapped
    if version not in VERSIONS:
        raise ThriftbitError(f"{stream.path}: GGUF version {version}; versions 2 and 3 can be read. Convert it again")
    return version


def _entry_count(stream: HeaderStream, what: str, least_bytes: int, limit: int) -> int:
    count = stream.count(what, least_bytes)
    if count > limit:
        raise stream.error(f"{count:,} {what} are more than any model has")
    return count


def _read_metadata(stream: HeaderStream, count: int) -> dict[str, MetadataValue]:
    metadata: dict[str, MetadataValue] = {}
    for index in range(count):
        key = stream.name(f"the name of metadata key {index}")
        if key in metadata:
            raise stream.error(f"metadata key {shown(key)} is there twice")
        metadata[key] = _read_value(stream, f"metadata key {shown(key)}")
    return metadata


def _read_value(stream: HeaderStream, what: str) -> MetadataValue:
    value_type = stream.integer(4, what)
    if value_type == GGUFValueType.STRING:
        return stream.text(what)
    if value_type in NUMBER_TYPES:
        number = stream.numbers(1, NUMBER_TYPES[GGUFValueType(value_type)], what)[0]
        return bool(number) if value_type == GGUFValueType.BOOL else number
    if value_type != GGUFValueType.ARRAY:
        raise stream.error(f"{what} has type {value_type}, which does not exist")
    item_type = stream.integer(4, what)
    if item_type == GGUFValueType.STRING:
        return stream.texts(stream.count(f"strings of {what}", 8), what)
    if item_type in NUMBER_TYPES:
        dtype = NUMBER_TYPES[GGUFValueType(item_type)]
        return stream.numbers(stream.count(f"numbers of {what}", dtype.itemsize), dtype, what)
    if item_type == GGUFValueType.ARRAY:
        raise ThriftbitError(f"{stream.path}: {what} is an array of arrays, which llama.cpp cannot read either")
    raise stream.error(f"{what} is an array of type {item_type}, which does not exist")


def _read_tensor_infos(stream: HeaderStream, count: int) -> list[TensorInfo]:
    """Return the tensors as the header has them: offsets count from the start of the data."""
    infos: dict[str, TensorInfo] = {}
    for index in range(count):
        name = stream.name(f"the name of tensor {index}")
        if name in infos:
            raise stream.error(f"tensor {shown(name)} is there twice")
        infos[name] = _read_tensor_info(stream, name)
    return list(infos.values())


def _read_tensor_info(stream: HeaderStream, name: str) -> TensorInfo:
    what = f"tensor {shown(name)}"
    dimensions = stream.integer(4, what)
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise stream.error(f"{what} has {dimensions} dimensions; 1 to {MAX_DIMENSIONS} are possible")
    shape = tuple(stream.integer(8, what) for _ in range(dimensions))[::-1]
    if min(shape) == 0 or math.prod(shape) >= 1 << 63:
        raise stream.error(f"{what} has the impossible shape {shape}")
    number = stream.integer(4, what)
    kind = ggml_type(number)
    if kind is None:
        raise ThriftbitError(
            f"{stream.path}: {what} has type {number}, which the llama.cpp here does not have; "
            "if the file is newer: pip install --upgrade xllamacpp, or else download it again"
        )
    block_size, block_bytes = block_of(kind)
    if shape[-1] % block_size:
        raise stream.error(f"{what} has rows of {shape[-1]}, not a multiple of the {block_size} of {kind.name}")
    size_bytes = math.prod(shape) // block_size * block_bytes
    return TensorInfo(name, shape, kind, stream.integer(8, what), size_bytes)


def _check_places(file: GGUFFile) -> None:
    """Every tensor is aligned, inside the file, and apart from all others."""
    in_order = sorted(file.tensors, key=lambda info: info.offset_bytes)
    for info in in_order:
        if info.offset_bytes % file.alignment:
            raise damaged(file.path, f"tensor {shown(info.name)} is not aligned to {file.alignment} bytes")
        if info.end_bytes > file.file_size_bytes:
            raise ThriftbitError(
                f"{file.path}: tensor {shown(info.name)} ends at byte {info.end_bytes:,}, the file at "
                f"{file.file_size_bytes:,}. The file is damaged or not all here. {how_to_finish(file.path)}"
            )
    for before, after in pairwise(in_order):
        if after.offset_bytes < before.end_bytes:
            raise damaged(file.path, f"tensors {shown(before.name)} and {shown(after.name)} overlap")
