"""Whole numbers in groups, each group with a scale, and perhaps a zero point or an offset: what GPTQ, AWQ,
compressed-tensors and MLX store, and what GGML's oldest formats store too.

A weight is (code - zero) * scale, or code * scale + offset. GGML's Q4_0 is the first with a fixed zero point, and Q4_1
is the second, both in groups of 32 with scales in half precision. So a GGUF can hold the very same weights if the size
of the groups is a multiple of 32 and all scales fit in half precision. `format` says which GGML format does it, and
`blocks` gives the weights in that format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from thriftbit.sources.packed.bits import Codes
from thriftbit.sources.tensor import ByteArray, FloatArray, SameRows

BLOCK = 32  # weights in a block of the formats below
_SCALES_AT_ONCE = 1 << 20

ReadFloats = Callable[[int, int], FloatArray]


@dataclass(frozen=True)
class Groups:
    """A matrix of grouped numbers. All functions take (start, stop), a range of its rows.

    rows, width: of the matrix. group: columns in a row that share a scale. bits: of a code.
    codes: return uint8 (n, width), without sign. scales: return float32 (n, groups).
    zeros: return float32 (n, groups), whole numbers. offsets: return float32 (n, groups). One of the two is given.
    order: whole numbers (width,): the group of each column; None if columns are in the order of their groups."""

    rows: int
    width: int
    group: int
    bits: int
    codes: Callable[[int, int], Codes]
    scales: ReadFloats
    zeros: ReadFloats | None = None
    offsets: ReadFloats | None = None
    order: NDArray[np.intp] | None = None

    def reader(self) -> SameRows:
        """Return the `Tensor.read` of the weights."""
        return SameRows(self.read, lambda: self.format, self.blocks)

    def read(self, start: int, stop: int) -> FloatArray:
        values = self.codes(start, stop).astype(np.float32)
        if self.zeros is not None:
            values -= self._spread(self.zeros(start, stop))
        values *= self._spread(self.scales(start, stop))
        if self.offsets is not None:
            values += self._spread(self.offsets(start, stop))
        return values

    def _spread(self, of_groups: FloatArray) -> FloatArray:
        """Repeat a number of each group for its columns. (n, groups) -> (n, width)."""
        if self.order is not None:
            return of_groups[:, self.order]
        return np.repeat(of_groups, self.group, axis=1)[:, : self.width]

    @cached_property
    def format(self) -> str | None:
        """The GGML format that holds these very weights. The first call reads all scales."""
        if self.order is not None or self.group % BLOCK or self.width % BLOCK:
            return None
        step = max(1, _SCALES_AT_ONCE * self.group // self.width)
        possible = ["Q4_0" if self.bits <= 4 else "Q8_0", *(["Q4_1"] if self.bits <= 4 else [])]
        for start in range(0, self.rows, step):
            scales, low = self._lowest(start, min(start + step, self.rows))
            if not _is_half(scales).all():
                return None
            # Q4_0 stores code - zero + 8, and gives (stored - 8) * scale; stored codes end at 15
            zeros = -low / np.where(scales == 0, 1, scales)
            half = np.float32(1 << (3 if self.bits <= 4 else 7))
            fits = (zeros == np.round(zeros)) & (zeros <= half) & ((1 << self.bits) - 1 - zeros < half)
            if not (fits & ((scales != 0) | (low == 0))).all() and possible[0] != "Q4_1":
                possible.pop(0)
            if "Q4_1" in possible and not _is_half(low).all():
                possible.remove("Q4_1")
            if not possible:
                return None
        return possible[0]

    def _lowest(self, start: int, stop: int) -> tuple[FloatArray, FloatArray]:
        """Return the scales, and the values of code 0: each float32 (n, groups)."""
        scales = self.scales(start, stop)
        if self.offsets is not None:
            return scales, self.offsets(start, stop)
        assert self.zeros is not None
        return scales, -self.zeros(start, stop) * scales

    def blocks(self, start: int, stop: int) -> ByteArray:
        """Return the rows in `format`."""
        scales, low = self._lowest(start, stop)
        repeats = self.group // BLOCK
        count = (stop - start) * self.width // BLOCK
        codes = self.codes(start, stop).reshape(count, BLOCK)
        scales = np.repeat(scales, repeats, axis=1)[:, : self.width // BLOCK].reshape(count, 1)
        low = np.repeat(low, repeats, axis=1)[:, : self.width // BLOCK].reshape(count, 1)
        head = scales.astype("<f2").view(np.uint8)
        if self.format == "Q4_1":
            blocks = np.hstack([head, low.astype("<f2").view(np.uint8), _nibbles(codes)])
        else:
            zeros = np.round(-low / np.where(scales == 0, 1, scales)).astype(np.int16)
            signed = (codes.astype(np.int16) - zeros).astype(np.int8)
            stored: ByteArray = signed.view(np.uint8)
            held = _nibbles(stored + np.uint8(8)) if self.format == "Q4_0" else stored
            blocks = np.hstack([head, held])
        return blocks.reshape(stop - start, -1)


def _is_half(values: FloatArray) -> NDArray[np.bool_]:
    with np.errstate(over="ignore"):
        same: NDArray[np.bool_] = values.astype(np.float16).astype(np.float32) == values
    return same


def _nibbles(codes: Codes) -> ByteArray:
    """Pack uint8 (n, 32) into (n, 16): number i in the low half of byte i, number 16 + i in the high half."""
    nibbles: ByteArray = codes[:, :16] | codes[:, 16:] << np.uint8(4)
    return nibbles
