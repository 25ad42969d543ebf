"""Q2_K: super-blocks of 256 weights in sixteen sub-blocks, x ≈ d·scale·l - d_min·min; l has 2 bits, scale and min 4."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import LARGEST_HALF, ByteArray, FloatArray, Format
from thriftbit.formats.grid import Grid, Numbers, ScaleKind, whole_numbers
from thriftbit.formats.packing import half_bytes, half_values, join_bits, split_bits


def decode(blocks: ByteArray) -> FloatArray:
    return unpack(blocks).affine_weights()


def unpack(blocks: ByteArray) -> Numbers:
    scales, mins = (blocks[:, :16] & 15).astype(np.float32), (blocks[:, :16] >> 4).astype(np.float32)
    codes = split_bits(blocks[:, 16:80], 2, 32)
    return Numbers(half_values(blocks[:, 80:82]), half_values(blocks[:, 82:84]), scales, mins, codes)


def pack(numbers: Numbers) -> ByteArray:
    both = numbers.scales.astype(np.uint8) | numbers.mins.astype(np.uint8) << 4
    return np.hstack([both, join_bits(numbers.codes, 2, 32), half_bytes(numbers.d), half_bytes(numbers.d_min)])


GRID = Grid(
    ScaleKind.TWO_MULTIPLES,
    whole_numbers(0, 4),
    unpack,
    pack,
    sub_blocks=16,
    lowest=0,
    highest=15,
    highest_min=15,
)


FORMAT = Format(
    "Q2_K",
    block_size=256,
    block_bytes=84,
    decode_blocks=decode,
    fallback="Q4_0",
    largest=15 * LARGEST_HALF,
    summary="smallest, with clear losses",
    grid=GRID,
)
