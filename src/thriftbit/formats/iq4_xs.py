"""IQ4_XS: super-blocks of 256 weights in eight sub-blocks, x ≈ d·(scale - 32)·v, v one of sixteen uneven values."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import LARGEST_HALF, ByteArray, FloatArray, Format
from thriftbit.formats.grid import Grid, Numbers, ScaleKind
from thriftbit.formats.iq4_nl import VALUES
from thriftbit.formats.packing import half_bytes, half_values, join_bits, split_bits


def decode(blocks: ByteArray) -> FloatArray:
    numbers = unpack(blocks)
    values = VALUES[numbers.codes].reshape(-1, 8, 32)
    return ((numbers.d * numbers.scales)[:, :, None] * values).reshape(-1, 256)


def unpack(blocks: ByteArray) -> Numbers:
    scales = split_bits(blocks[:, 2:4], 2, 1) << np.uint8(4) | split_bits(blocks[:, 4:8], 4, 1)
    codes = split_bits(blocks[:, 8:], 4, 16)
    return Numbers.of_multiples(codes, half_values(blocks[:, :2]), scales.astype(np.float32) - 32)


def pack(numbers: Numbers) -> ByteArray:
    scales = (numbers.scales + 32).astype(np.uint8)
    high, low = join_bits(scales >> 4, 2, 1), join_bits(scales & 15, 4, 1)
    return np.hstack([half_bytes(numbers.d), high, low, join_bits(numbers.codes, 4, 16)])


GRID = Grid(ScaleKind.MULTIPLE, VALUES, unpack, pack, sub_blocks=8, lowest=-32, highest=31)

FORMAT = Format(
    "IQ4_XS",
    block_size=256,
    block_bytes=136,
    decode_blocks=decode,
    fallback="IQ4_NL",
    largest=31 * 113 * LARGEST_HALF,
    summary="smallest good 4 bits",
    grid=GRID,
)
