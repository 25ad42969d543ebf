"""The grid of a codebook format: all values that its blocks can take, for code that chooses them one at a time.

In these formats a code stands for several weights at once: it names an entry of a codebook, a vector of four or eight
numbers. One formula covers all of them: a weight is d · scale · (± number of the vector + shift). d belongs to a
block, scale to a sub-block, and the shift to a shift block, which holds one vector or several. Each weight has a sign
of its own, where the format stores signs. A format without shifts has an empty table of shifts.

scale and shift are entries of tables too. So a vector grid is three tables, the rule for the signs, and the two
functions between bytes and numbers. `grid.py` does the same for formats with one code for each weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from thriftbit.formats.format import ByteArray, FloatArray

SIGN_GROUP = 8
"""Where the number of minus signs has to be even, it is even in every this many weights."""


class Signs(IntEnum):
    """Which signs a format stores. The numbers are those of native/vector_rounding.hpp."""

    NONE = 0  # the vectors have their own signs
    FREE = 1  # one for each weight
    EVEN = 2  # one for each weight; in every SIGN_GROUP weights an even number is minus


@dataclass
class VectorNumbers:
    """What blocks hold.

    d: float32 (blocks, 1), in half precision. scales: uint8 (blocks, sub-blocks), entries of the grid's scales.
    vectors: uint16 (blocks, groups), entries of the grid's vectors. signs: bool (blocks, block size), True for minus;
    all False where the format stores none. shifts: uint8 (blocks, shift blocks), entries of the grid's shifts;
    (blocks, 0) where there are none.
    """

    d: FloatArray
    scales: ByteArray
    vectors: NDArray[np.uint16]
    signs: NDArray[np.bool_]
    shifts: ByteArray


VectorUnpack = Callable[[ByteArray], VectorNumbers]
VectorPack = Callable[[VectorNumbers], ByteArray]


@dataclass(frozen=True)
class VectorGrid:
    """vectors: float32 (entries, group), the codebook; not negative where the format stores signs. scales: float32
    (entries,), ascending, multiples of d. signs: which are stored. sub_blocks, shift_blocks: in a block, of equal size,
    each one group or several. shifts: float32 (entries,), ascending, added to the signed vector; (0,) where there are
    none.
    unpack: uint8 (blocks, block bytes) -> VectorNumbers; pack: the way back, for signs that the format can store.
    """

    vectors: FloatArray
    scales: FloatArray
    signs: Signs
    sub_blocks: int
    unpack: VectorUnpack
    pack: VectorPack
    shift_blocks: int = 0
    shifts: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def group(self) -> int:
        """How many weights a vector stands for."""
        return int(self.vectors.shape[1])

    def decode(self, numbers: VectorNumbers) -> FloatArray:
        """Return float32 (blocks, block size): the weights, bit for bit as the format decodes them."""
        blocks, block_size = numbers.signs.shape
        levels = self.vectors[numbers.vectors].reshape(blocks, block_size)
        levels = np.where(numbers.signs, -levels, levels)
        if self.shift_blocks:
            levels += np.repeat(self.shifts[numbers.shifts], block_size // self.shift_blocks, axis=1)
        scales = numbers.d * self.scales[numbers.scales]
        weights: FloatArray = np.repeat(scales, block_size // self.sub_blocks, axis=1) * levels
        return weights
