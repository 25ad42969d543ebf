"""Q5_1: blocks of 32 weights, x ≈ d·l + m, l of 5 bits; d and m in half precision."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray, Format
from thriftbit.formats.grid import Grid, Numbers, ScaleKind, whole_numbers
from thriftbit.formats.packing import half_bytes, half_values, join_fifth_bits, split_fifth_bits


def decode(blocks: ByteArray) -> FloatArray:
    return unpack(blocks).affine_weights()


def unpack(blocks: ByteArray) -> Numbers:
    """The stored offset is added; that of `Numbers` is taken away."""
    return Numbers.of_blocks(split_fifth_bits(blocks[:, 4:]), half_values(blocks[:, :2]), -half_values(blocks[:, 2:4]))


def pack(numbers: Numbers) -> ByteArray:
    return np.hstack([half_bytes(numbers.d), half_bytes(-numbers.d_min), join_fifth_bits(numbers.codes)])


GRID = Grid(ScaleKind.HALF_AND_HALF, whole_numbers(0, 32), unpack, pack)

FORMAT = Format(
    "Q5_1",
    block_size=32,
    block_bytes=24,
    decode_blocks=decode,
    summary="5 bits with an offset",
    grid=GRID,
)
