"""Write GGUF files, version 3, of which every byte's place is known before the first is written.

`layout` turns metadata and a list of tensors into the exact header and file size without touching a weight: that is
what a dry run prints and what the free disk space is held against. `GGUFWriter` then takes the tensors' bytes in that
order, piece by piece, and holds none of them. Tensors follow one another in the order of the header, padded to the
alignment: llama.cpp accepts no other arrangement.

Left out: split files, big-endian files.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from gguf import Keys

from thriftbit.containers.atomic_file import AtomicFile
from thriftbit.containers.entry import Entry
from thriftbit.containers.ggml_types import number_of
from thriftbit.containers.gguf_values import (
    MAGIC,
    MAX_DIMENSIONS,
    VERSION,
    Metadata,
    alignment_of,
    encode_string,
    encode_value,
    padded,
)
from thriftbit.errors import ThriftbitError
from thriftbit.formats.format import ByteArray

TENSOR_NAME_LIMIT_BYTES = 63  # ggml keeps names in 64 bytes, the last of which is zero


@dataclass(frozen=True)
class Layout:
    """header: the file up to the first tensor, padding included. offsets_bytes: of the entries, from its beginning"""

    header: bytes
    entries: tuple[Entry, ...]
    offsets_bytes: tuple[int, ...]
    alignment: int
    file_size_bytes: int


def layout(metadata: Metadata, entries: Sequence[Entry]) -> Layout:
    """Return where everything goes.

    metadata: every key of the file, `general.architecture` included (it goes to the front, where readers look for it);
    `general.alignment` is honoured, 32 without it. Raises ThriftbitError for a tensor that GGUF or its format cannot
    hold, TypeError for a metadata value without a GGUF type.
    """
    alignment = alignment_of(metadata)
    ordered = {key: metadata[key] for key in (Keys.General.ARCHITECTURE,) if key in metadata} | dict(metadata)
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(entries), len(ordered))]
    parts += [encode_string(key) + encode_value(value) for key, value in ordered.items()]
    offset, offsets = 0, []  # from the start of the data
    for entry in entries:
        _check(entry)
        dimensions = entry.shape[::-1]
        parts.append(encode_string(entry.name))
        parts.append(
            struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, number_of(entry.format), offset)
        )
        offsets.append(offset)
        offset += padded(entry.size_bytes, alignment)
    _check_unique(entries)
    header = b"".join(parts)
    header = header.ljust(padded(len(header), alignment), b"\0")
    absolute = tuple(len(header) + offset for offset in offsets)
    return Layout(header, tuple(entries), absolute, alignment, len(header) + offset)


class GGUFWriter:
    """Context manager that writes one file, whole or not at all (see `AtomicFile` for what entering it can raise).

    with GGUFWriter(path, layout) as writer:
        for entry in layout.entries:
            writer.write(entry.name, pieces)
    """

    def __init__(self, path: str | Path, layout: Layout, *, force: bool = False) -> None:
        self._file = AtomicFile(path, layout.file_size_bytes, force=force)
        self._layout = layout
        self._expected = iter(layout.entries)

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.enter_context(self._file)
            self._file.write(self._layout.header)
            undo.pop_all()
        return self

    @property
    def path(self) -> Path:
        """Return where the file will be; after the end, where it is."""
        return self._file.path

    @property
    def size_bytes(self) -> int:
        return self._layout.file_size_bytes

    def write(self, name: str, pieces: Iterable[ByteArray]) -> None:
        """Write the next tensor of the layout. pieces: arrays of bytes in row order, together exactly its size.

        ValueError if it is another tensor's turn, or the bytes are too few or too many; ThriftbitError if the disk is
        full.
        """
        entry = next(self._expected, None)
        if entry is None or entry.name != name:
            expected = repr(entry.name) if entry else "its end"
            raise ValueError(f"{name!r} was written where the layout has {expected}")
        left_bytes = entry.size_bytes
        for piece in pieces:
            left_bytes -= piece.nbytes
            if piece.dtype != np.uint8 or left_bytes < 0:
                raise ValueError(f"{name!r}: {-left_bytes} bytes too many, or {piece.dtype} in place of bytes")
            self._file.write(piece.reshape(-1).data)
        if left_bytes:
            raise ValueError(f"{name!r}: {left_bytes} of {entry.size_bytes} bytes were not given")
        self._file.write(bytes(padded(entry.size_bytes, self._layout.alignment) - entry.size_bytes))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, traceback)


def _check(entry: Entry) -> None:
    size = len(entry.name.encode())
    if not 0 < size <= TENSOR_NAME_LIMIT_BYTES or not entry.name.isprintable():
        raise ThriftbitError(
            f"tensor {entry.name!r}: GGUF wants names of 1 to {TENSOR_NAME_LIMIT_BYTES} printable bytes"
        )
    if not 1 <= len(entry.shape) <= MAX_DIMENSIONS or min(entry.shape) < 1:
        raise ThriftbitError(f"tensor {entry.name!r}: GGUF cannot hold the shape {entry.shape}")
    try:
        entry.format.row_bytes(entry.shape[-1])
    except ThriftbitError as error:
        raise ThriftbitError(f"tensor {entry.name!r}: {error}") from None


def _check_unique(entries: Sequence[Entry]) -> None:
    seen: set[str] = set()
    for entry in entries:
        if entry.name in seen:
            raise ThriftbitError(f"tensor {entry.name!r} is there twice; every tensor of a GGUF has a name of its own")
        seen.add(entry.name)
