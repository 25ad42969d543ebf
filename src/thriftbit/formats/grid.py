"""A format's grid: all values that its blocks can take, for code that chooses them one at a time.

`Format.encode` fits every block alone. Rounding a whole matrix (`quantization/rounding.py`) moves single codes and
scales, and has to know which weights each move gives. One formula covers every quantized format here: a weight is d ·
scale · value[code] − d_min · min. scale and min belong to a sub-block, d and d_min to a block. A format without
sub-blocks has one sub-block with scale and min 1. A format without an offset has d_min 0.

So a grid is a table of values, the ranges of the multiples, and the two functions between bytes and numbers. The
format's own encoder and decoder use these functions too. Decoders of single formats are faster than `Grid.decode`,
which looks up every value; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.formats.packing import half


class ScaleKind(IntEnum):
    """What can be chosen for a sub-block. The numbers are those of native/rounding.hpp."""

    HALF = 0  # d, in half precision
    HALF_AND_HALF = 1  # d and d_min, in half precision
    MULTIPLE = 2  # a whole multiple of d
    TWO_MULTIPLES = 3  # whole multiples of d and of d_min
    TABLE = 4  # an entry of a table; d is 1


@dataclass
class Numbers:
    """What blocks hold. d, d_min: (blocks, 1) float32, in half precision. scales, mins: (blocks, sub-blocks) float32,
    whole numbers, or numbers of the grid's table of scales. codes: (blocks, block size) uint8."""

    d: FloatArray
    d_min: FloatArray
    scales: FloatArray
    mins: FloatArray
    codes: ByteArray

    @classmethod
    def of_blocks(cls, codes: ByteArray, d: FloatArray, d_min: FloatArray | None = None) -> Numbers:
        """Blocks with one scale and, in some formats, an offset. d, d_min: (blocks,) or (blocks, 1)."""
        d = d.reshape(-1, 1)
        ones = np.ones_like(d)
        return cls(d, np.zeros_like(d) if d_min is None else d_min.reshape(-1, 1), ones, ones, codes)

    @classmethod
    def of_multiples(cls, codes: ByteArray, d: FloatArray, scales: FloatArray) -> Numbers:
        """Super-blocks without offsets. d: as above. scales: (blocks, sub-blocks), or (all sub-blocks,)."""
        d = d.reshape(-1, 1)
        scales = scales.reshape(len(d), -1)
        return cls(d, np.zeros_like(d), scales, np.zeros_like(scales), codes)

    @classmethod
    def of_scales(cls, codes: ByteArray, scales: FloatArray) -> Numbers:
        """Blocks whose scales come from a table. scales: (blocks, sub-blocks)."""
        return cls.of_multiples(codes, np.ones(len(scales), np.float32), scales)

    def symmetric_weights(self, zero: int) -> FloatArray:
        """Return float32 (blocks, block size): d·scale·(code − zero)."""
        levels = self.codes.reshape(*self.scales.shape, -1).astype(np.float32) - zero
        weights: FloatArray = (self.d * self.scales)[:, :, None] * levels
        return weights.reshape(self.codes.shape)

    def affine_weights(self) -> FloatArray:
        """Return float32 (blocks, block size): d·scale·code − d_min·min, where codes are the values themselves."""
        levels = self.codes.reshape(*self.scales.shape, -1)
        weights = (self.d * self.scales)[:, :, None] * levels - (self.d_min * self.mins)[:, :, None]
        return weights.reshape(self.codes.shape)


Unpack = Callable[[ByteArray], Numbers]
Pack = Callable[[Numbers], ByteArray]


@dataclass(frozen=True)
class Grid:
    """kind: what may be chosen. values: ascending, what each code stands for. sub_blocks: in a block, of equal size.
    lowest, highest: the multiples of d that can be stored; highest_min: those of d_min.
    scale_table: the scales that can be stored, ascending, where the kind is TABLE.
    unpack: uint8 (blocks, block bytes) -> Numbers; pack: the way back.
    """

    kind: ScaleKind
    values: FloatArray
    unpack: Unpack
    pack: Pack
    sub_blocks: int = 1
    lowest: int = 1
    highest: int = 1
    highest_min: int = 0
    scale_table: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))

    def decode(self, numbers: Numbers) -> FloatArray:
        """Return float32 (blocks, block size): the weights, bit for bit as the format decodes them."""
        scales, offsets = self.scales_and_offsets(numbers)
        sub_block = numbers.codes.shape[1] // self.sub_blocks
        levels = self.values[numbers.codes].reshape(len(numbers.codes), self.sub_blocks, sub_block)
        weights: FloatArray = (scales[:, :, None] * levels + offsets[:, :, None]).reshape(numbers.codes.shape)
        return weights

    def scales_and_offsets(self, numbers: Numbers) -> tuple[FloatArray, FloatArray]:
        """Return two float32 arrays (blocks, sub-blocks): a weight is scale · value + offset."""
        return numbers.d * numbers.scales, -(numbers.d_min * numbers.mins)

    def with_scales_and_offsets(
        self, numbers: Numbers, scales: FloatArray, offsets: FloatArray, codes: ByteArray
    ) -> Numbers:
        """Return numbers with these scales and offsets, rounded as the format stores them. Where the format stores
        multiples, d and d_min do not change."""
        if self.kind in (ScaleKind.HALF, ScaleKind.HALF_AND_HALF):
            return Numbers(half(scales), half(-offsets), numbers.scales, numbers.mins, codes)
        if self.kind == ScaleKind.TABLE:
            return Numbers.of_scales(codes, nearest_of(self.scale_table, scales))
        multiples = _multiples(scales, numbers.d, self.lowest, self.highest)
        mins = _multiples(-offsets, numbers.d_min, 0, self.highest_min)
        return Numbers(numbers.d, numbers.d_min, multiples, mins, codes)


def whole_numbers(first: int, count: int) -> FloatArray:
    """Return a table of `count` consecutive whole numbers that begins with `first`."""
    return np.arange(first, first + count, dtype=np.float32)


def nearest_of(table: FloatArray, values: FloatArray) -> FloatArray:
    """Return the number of the ascending table that is nearest to each value."""
    nearest: FloatArray = table[np.searchsorted((table[:-1] + table[1:]) / 2, values)]
    return nearest


def _multiples(values: FloatArray, step: FloatArray, lowest: int, highest: int) -> FloatArray:
    zero: NDArray[np.bool_] = step == 0
    nearest: FloatArray = np.clip(np.rint(values / np.where(zero, np.float32(1), step)), lowest, highest)
    return np.where(zero, np.float32(0), nearest).astype(np.float32)
