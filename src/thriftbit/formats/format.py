"""What a number format is: the contract every file of this folder fulfils.

A format packs `block_size` consecutive weights of a row into `block_bytes` bytes. The files of this folder hold, each, one
format as readable numpy: that is the specification. Where a kernel of the same name was compiled (`native/`), `encode`
uses it; it gives the same bytes, on every machine and with any number of threads, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import gguf
import numpy as np
from numpy.typing import NDArray

from thriftbit.errors import ThriftbitError

_native: ModuleType | None
try:
    from thriftbit import _native
except ImportError:  # a source tree without a compiler: everything works, slower
    _native = None

FloatArray = NDArray[np.float32]
ByteArray = NDArray[np.uint8]


native_kernels: frozenset[str] = frozenset(_native.kernels()) if _native is not None else frozenset()


@dataclass(frozen=True)
class Format:
    """How weights are stored.

    name, ggml_type: GGML's. block_size: weights in a block. block_bytes: bytes in a block.
    encode_blocks: (x (n, block_size) float32, importance (n, block_size) float32 or None) -> uint8 (n, block_bytes);
        None for formats that can only be read.
    decode_blocks: uint8 (n, block_bytes) -> float32 (n, block_size), bit for bit what ggml's own decoder gives.
    fallback: the format for rows that `block_size` does not divide, as llama.cpp chooses it; None where any row fits
        or nothing does.
    summary: one line for people.
    """

    name: str
    ggml_type: gguf.GGMLQuantizationType
    decode_blocks: Callable[[ByteArray], FloatArray]
    encode_blocks: Callable[[FloatArray, FloatArray | None], ByteArray] | None = None
    fallback: str | None = None
    summary: str = ""

    @property
    def block_size(self) -> int:
        return int(gguf.GGML_QUANT_SIZES[self.ggml_type][0])

    @property
    def block_bytes(self) -> int:
        return int(gguf.GGML_QUANT_SIZES[self.ggml_type][1])

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.block_bytes / self.block_size

    @property
    def can_encode(self) -> bool:
        return self.encode_blocks is not None

    def row_bytes(self, width: int) -> int:
        """-> bytes that a row of `width` weights takes; ThriftbitError if blocks do not divide it"""
        if width % self.block_size:
            raise ThriftbitError(f"rows of {width} weights do not divide into the blocks of {self.block_size} that {self.name} needs")
        return width // self.block_size * self.block_bytes

    def encode(self, rows: FloatArray, importance: FloatArray | None = None, threads: int = 1) -> ByteArray:
        """-> uint8 (n, row_bytes): the rows, each weight packed so that the sum of importance * error² is small

        rows: float32 (n, width), finite. importance: float32 (width,), not negative, one weight per column; None: all equal.
        Raises ThriftbitError for weights that are not finite or too large to store, or a width that does not fit the blocks.
        """
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        width = rows.shape[1]
        row_bytes = self.row_bytes(width)
        if self.encode_blocks is None:
            raise ThriftbitError(f"{self.name} can be read but not written; choose another format")
        if importance is not None:
            importance = np.ascontiguousarray(importance, dtype=np.float32)
            if importance.shape != (width,):
                raise ThriftbitError(f"importance for {importance.shape} columns does not fit rows of {width} weights")
        if self.name in native_kernels:
            assert _native is not None
            encoded: ByteArray = _native.encode(self.name, rows, importance, threads)
            return encoded
        blocks = rows.reshape(-1, self.block_size)
        weights = None if importance is None else np.resize(importance, rows.shape).reshape(blocks.shape)
        return self.encode_blocks(blocks, weights).reshape(len(rows), row_bytes)

    def decode(self, blocks: ByteArray) -> FloatArray:
        """uint8 (n, row_bytes) -> float32 (n, width)"""
        n = blocks.shape[0]
        return self.decode_blocks(blocks.reshape(-1, self.block_bytes)).reshape(n, -1)
