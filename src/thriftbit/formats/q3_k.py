"""Q3_K: super-blocks of 256 weights in sixteen sub-blocks, x ≈ d·(scale - 32)·(l - 4); l has 3 bits, scale 6."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import LARGEST_HALF, ByteArray, FloatArray, Format
from thriftbit.formats.grid import Grid, Numbers, ScaleKind, whole_numbers
from thriftbit.formats.packing import half_bytes, half_values, join_bits, split_bits


def decode(blocks: ByteArray) -> FloatArray:
    return unpack(blocks).symmetric_weights(4)


def unpack(blocks: ByteArray) -> Numbers:
    codes = split_bits(blocks[:, 32:96], 2, 32) | split_bits(blocks[:, :32], 1, 32) << np.uint8(2)
    scales = split_bits(blocks[:, 96:104], 4, 8) | split_bits(blocks[:, 104:108], 2, 4) << np.uint8(4)
    return Numbers.of_multiples(codes, half_values(blocks[:, 108:110]), scales.astype(np.float32) - 32)


def pack(numbers: Numbers) -> ByteArray:
    scales = (numbers.scales + 32).astype(np.uint8)
    high, low = join_bits(numbers.codes >> 2, 1, 32), join_bits(numbers.codes & 3, 2, 32)
    return np.hstack([high, low, join_bits(scales & 15, 4, 8), join_bits(scales >> 4, 2, 4), half_bytes(numbers.d)])


GRID = Grid(ScaleKind.MULTIPLE, whole_numbers(-4, 8), unpack, pack, sub_blocks=16, lowest=-32, highest=31)

FORMAT = Format(
    "Q3_K",
    block_size=256,
    block_bytes=110,
    decode_blocks=decode,
    fallback="Q4_0",
    largest=31 * 3 * LARGEST_HALF,
    summary="small, with losses",
    grid=GRID,
)
