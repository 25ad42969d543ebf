"""A tensor that is not in memory.

Models are larger than the machines we run on, so nothing here holds weights: a `Tensor` knows its name, shape and how
to read any range of its rows as float32. Everything an architecture does to weights on their way from a checkpoint to a
GGUF (permuting rows, stacking experts, transposing a matrix) is a function from tensors to a tensor, and stays lazy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from thriftbit.errors import ThriftbitError

FloatArray = NDArray[np.float32]
ByteArray = NDArray[np.uint8]


@dataclass(frozen=True)
class SameRows:
    """A `Tensor.read` whose rows a GGML format holds without any change.

    A view that keeps rows whole (`reordered`, `stacked`, `part`) keeps this too; any other view replaces `read`, and
    thereby says that the promise no longer holds.

    read: see `Tensor`. format: a function that returns the name of that GGML format, or None if the weights fit into
    none. It may read all scales of the tensor, so it is called only when its answer is needed.
    blocks: (start, stop) -> uint8 (stop - start, bytes of a row): those rows in that format.
    factors: (start, stop) -> float32 (stop - start, 1): by what the format's numbers are multiplied, which the blocks
    do not hold (`tensor_scales.py`). None: by nothing.
    """

    without_factors: Callable[[int, int], FloatArray]
    format: Callable[[], str | None]
    blocks: Callable[[int, int], ByteArray]
    factors: Callable[[int, int], FloatArray] | None = None

    def __call__(self, start: int, stop: int) -> FloatArray:
        rows = self.without_factors(start, stop)
        return rows if self.factors is None else rows * self.factors(start, stop)


class WeightsElsewhereError(ThriftbitError):
    """The weights of this tensor are not on this computer: only a header or a configuration describes it."""


@dataclass(frozen=True)
class Tensor:
    """Some weights of a model, read on demand.

    name: the checkpoint's, or after an architecture mapped it, the container's.
    shape: as numpy has it; the last axis is the one that is quantized in blocks. () is not allowed, (n,) is one row.
    source_dtype: what the weights are stored as at the source ("F32", "F16", "BF16", or a GGML type such as "Q8_0").
    read: (start, stop) -> float32 array (stop - start, width): those rows of the tensor seen as (rows, width).
    role: what the tensor does in the network ("attention-query", "ffn-down", ...), "" before it is set.
    packed_bits: bits per weight at the source, scales included, for weights that come packed. 0 for all others.
    undecoded: (start, stop) -> uint8 rows as they are stored, for a GGML type that llama.cpp runs but Thriftbit cannot
        decode; `read` raises ThriftbitError then. None for all others.
    """

    name: str
    shape: tuple[int, ...]
    source_dtype: str
    read: Callable[[int, int], FloatArray]
    role: str = ""
    packed_bits: float = 0.0
    undecoded: Callable[[int, int], NDArray[np.uint8]] | None = None

    @property
    def width(self) -> int:
        return self.shape[-1]

    @property
    def rows(self) -> int:
        return math.prod(self.shape[:-1])

    @property
    def matrix_rows(self) -> int:
        """The rows of one matrix: of one expert if several are stacked, else of the whole tensor."""
        return self.shape[-2] if len(self.shape) > 1 else 1

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)

    def load(self, start: int = 0, stop: int | None = None) -> FloatArray:
        """Return float32 (stop - start, width): a range of rows, all of them by default."""
        return self.read(start, self.rows if stop is None else stop)

    @property
    def is_packed(self) -> bool:
        return self.packed_bits > 0

    @property
    def same_format(self) -> str | None:
        """The quantized GGML format that holds exactly these weights; None if none is known."""
        return self.read.format() if isinstance(self.read, SameRows) else None

    def chunks(self, chunk_bytes: int) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) row ranges that cover the tensor, none across two matrices. A range takes at most
        `chunk_bytes` as float32, or has one row."""
        step = max(1, chunk_bytes // (4 * self.width))
        for first in range(0, self.rows, self.matrix_rows):
            last = first + self.matrix_rows
            for start in range(first, last, step):
                yield start, min(start + step, last)

    def renamed(self, name: str, role: str = "") -> Tensor:
        return replace(self, name=name, role=role or self.role)
