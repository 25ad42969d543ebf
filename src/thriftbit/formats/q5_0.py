"""Q5_0: blocks of 32 weights, x ≈ d·(l - 16), l of 5 bits."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import LARGEST_HALF, ByteArray, FloatArray, Format
from thriftbit.formats.grid import Grid, Numbers, ScaleKind, whole_numbers
from thriftbit.formats.packing import half_bytes, half_values, join_fifth_bits, split_fifth_bits


def decode(blocks: ByteArray) -> FloatArray:
    return unpack(blocks).symmetric_weights(16)


def unpack(blocks: ByteArray) -> Numbers:
    return Numbers.of_blocks(split_fifth_bits(blocks[:, 2:]), half_values(blocks[:, :2]))


def pack(numbers: Numbers) -> ByteArray:
    return np.hstack([half_bytes(numbers.d), join_fifth_bits(numbers.codes)])


GRID = Grid(ScaleKind.HALF, whole_numbers(-16, 32), unpack, pack)

FORMAT = Format(
    "Q5_0",
    block_size=32,
    block_bytes=22,
    decode_blocks=decode,
    largest=15 * LARGEST_HALF,
    summary="plain 5 bits",
    grid=GRID,
)
