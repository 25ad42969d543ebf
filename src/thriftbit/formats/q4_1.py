"""Q4_1: blocks of 32 weights, x ≈ d·l + m, l of 4 bits; d and m in half precision."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray, Format
from thriftbit.formats.grid import Grid, Numbers, ScaleKind, whole_numbers
from thriftbit.formats.packing import half_bytes, half_values, join_bits, split_bits


def decode(blocks: ByteArray) -> FloatArray:
    return unpack(blocks).affine_weights()


def unpack(blocks: ByteArray) -> Numbers:
    """The stored offset is added; that of `Numbers` is taken away."""
    return Numbers.of_blocks(split_bits(blocks[:, 4:], 4, 16), half_values(blocks[:, :2]), -half_values(blocks[:, 2:4]))


def pack(numbers: Numbers) -> ByteArray:
    return np.hstack([half_bytes(numbers.d), half_bytes(-numbers.d_min), join_bits(numbers.codes, 4, 16)])


GRID = Grid(ScaleKind.HALF_AND_HALF, whole_numbers(0, 16), unpack, pack)

FORMAT = Format(
    "Q4_1",
    block_size=32,
    block_bytes=20,
    decode_blocks=decode,
    summary="4 bits with an offset",
    grid=GRID,
)
