"""What a number format is: the contract that every file of this folder fulfils.

A format is a codec: it packs `block_size` consecutive weights of a row into `block_bytes` bytes, and back. It knows
nothing of files. How a file names and arranges the blocks is a container's business (`containers/`). Each file of this
folder has one format as readable numpy, which is the specification. Where a kernel of the same name is compiled
(`native/`), `encode` uses the kernel. The kernel gives the same bytes, on every machine and with any number of threads.
A test compares the two.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from thriftbit.errors import ThriftbitError

if TYPE_CHECKING:
    from thriftbit.formats.grid import Grid
    from thriftbit.formats.vector_grid import VectorGrid

try:
    _native: ModuleType | None = importlib.import_module("thriftbit._native")
except ImportError:  # a source tree without compiled kernels: everything works, but slowly
    _native = None

FloatArray = NDArray[np.float32]
ByteArray = NDArray[np.uint8]

LARGEST_HALF = 65504.0
"""The largest number in half precision, in which most formats keep their scales."""


native_kernels: frozenset[str] = frozenset(_native.kernels()) if _native is not None else frozenset()


def give_codebook(name: str, values: FloatArray, levels: ByteArray) -> None:
    """Hand a codebook to the compiled kernels, where there are kernels. values, levels: as in `codebooks.Codebook`."""
    if _native is not None:
        _native.give_codebook(name, values, levels)


class WeightError(ThriftbitError):
    """A weight that the format cannot store. row and column: its place among the rows given."""

    def __init__(self, row: int, column: int, value: float, reason: str) -> None:
        super().__init__(f"row {row}: weight {column} is {value}, {reason}")
        self.row, self.column, self.value, self.reason = row, column, value, reason


@dataclass(frozen=True)
class Format:
    """How weights are stored.

    name: GGML's name of the type. block_size: weights in a block. block_bytes: bytes in a block.
    encode_blocks: (x (rows, width) float32, importance (rows, width) float32 or None) -> uint8 (blocks, block_bytes);
        None for formats that can only be read.
    decode_blocks: uint8 (n, block_bytes) -> float32 (n, block_size), bit for bit what ggml's own decoder gives.
    fallback: the format for rows that `block_size` does not divide, as llama.cpp chooses it; None where any row fits
        or nothing does.
    largest: the largest magnitude that can be stored with either sign. Most formats keep a scale in half precision, so
        it is LARGEST_HALF times the largest number that the scale is multiplied with.
    summary: one line for people.
    grid: what its codes and scales may be, for rounding that chooses them: a Grid where each weight has a code of its
        own, a VectorGrid where a code stands for several weights; None where there is nothing to choose.
    """

    name: str
    block_size: int
    block_bytes: int
    decode_blocks: Callable[[ByteArray], FloatArray] | None
    encode_blocks: Callable[[FloatArray, FloatArray | None], ByteArray] | None = None
    fallback: str | None = None
    largest: float = LARGEST_HALF
    summary: str = ""
    grid: Grid | VectorGrid | None = None

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.block_bytes / self.block_size

    @property
    def can_decode(self) -> bool:
        return self.decode_blocks is not None

    @property
    def can_encode(self) -> bool:
        return self.encode_blocks is not None

    def row_bytes(self, width: int) -> int:
        """Return the bytes of a row of `width` weights. ThriftbitError if `block_size` does not divide the width."""
        if width % self.block_size:
            blocks = f"blocks of {self.block_size}"
            raise ThriftbitError(f"rows of {width} weights do not divide into the {blocks} that {self.name} needs")
        return width // self.block_size * self.block_bytes

    def encode(self, rows: FloatArray, importance: FloatArray | None = None, threads: int = 1) -> ByteArray:
        """Return uint8 (n, row_bytes): the rows, encoded so that the sum of importance * error² is small.

        rows: float32 (n, width). importance: float32 (width,), finite and not negative, one for each column; None: all
        columns count the same. The bytes depend neither on `threads` nor on the machine.
        Raises WeightError for weights that are not finite or too large to store, ThriftbitError for a width or an
        importance that does not fit.
        """
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        row_bytes = self.row_bytes(rows.shape[1])
        if self.encode_blocks is None:
            raise ThriftbitError(f"{self.name} can be read but not written; choose another format")
        choice = self.block_size > 1  # formats without blocks only round, so importance changes nothing
        weights = _checked_importance(importance, rows.shape[1]) if choice and importance is not None else None
        if _native is not None and self.name in native_kernels:
            encoded: ByteArray | None = _native.encode(self.name, rows, weights, self.largest, threads)
            if encoded is None:
                raise self._refusal(rows)
            return encoded
        if not (np.abs(rows) <= np.float32(self.largest)).all():
            raise self._refusal(rows)
        shares = None if weights is None else np.broadcast_to(weights, rows.shape)
        return self.encode_blocks(rows, shares).reshape(len(rows), row_bytes)

    def _refusal(self, rows: FloatArray) -> WeightError:
        row, column = (int(place) for place in np.argwhere(~(np.abs(rows) <= np.float32(self.largest)))[0])
        value = float(rows[row, column])
        if np.isfinite(value):
            reason = f"more than {self.name} can hold; use BF16 or F32 for this tensor"
        else:
            reason = "which no format can hold; the model is damaged, download it again or ask its authors"
        return WeightError(row, column, value, reason)

    def decode(self, blocks: ByteArray) -> FloatArray:
        """uint8 (n, row_bytes) -> float32 (n, width)"""
        if self.decode_blocks is None:
            raise ThriftbitError(f"weights stored as {self.name} can be run here, but not decoded")
        n = blocks.shape[0]
        return self.decode_blocks(blocks.reshape(-1, self.block_bytes)).reshape(n, -1)


def _checked_importance(importance: FloatArray, width: int) -> FloatArray | None:
    """Return the importance, scaled to at most one so that sums cannot overflow. The factor is a power of four, so the
    scaling rounds nothing, roots of the importance included. Return None if every importance is zero."""
    importance = np.ascontiguousarray(importance, dtype=np.float32)
    if importance.shape != (width,):
        raise ThriftbitError(f"importance of shape {importance.shape} does not fit rows of {width} weights")
    if not np.isfinite(importance).all() or importance.min() < 0:
        raise ThriftbitError("importance has negative or non-finite values; make the importance file again")
    exponent = np.frexp(importance.max())[1]
    return np.ldexp(importance, -(exponent + exponent % 2)) if importance.any() else None
