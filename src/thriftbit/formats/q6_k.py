"""Q6_K: super-blocks of 256 weights in sixteen sub-blocks, x ≈ d·scale·(l - 32), l of 6 bits, scale a signed byte."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import LARGEST_HALF, ByteArray, FloatArray, Format
from thriftbit.formats.grid import Grid, Numbers, ScaleKind, whole_numbers
from thriftbit.formats.packing import half_bytes, half_values, join_bits, split_bits


def decode(blocks: ByteArray) -> FloatArray:
    return unpack(blocks).symmetric_weights(32)


def unpack(blocks: ByteArray) -> Numbers:
    codes = split_bits(blocks[:, :128], 4, 64) | split_bits(blocks[:, 128:192], 2, 32) << np.uint8(4)
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32)
    return Numbers.of_multiples(codes, half_values(blocks[:, 208:210]), scales)


def pack(numbers: Numbers) -> ByteArray:
    low, high = join_bits(numbers.codes & 15, 4, 64), join_bits(numbers.codes >> 4, 2, 32)
    return np.hstack([low, high, numbers.scales.astype(np.int8).view(np.uint8), half_bytes(numbers.d)])


GRID = Grid(ScaleKind.MULTIPLE, whole_numbers(-32, 64), unpack, pack, sub_blocks=16, lowest=-128, highest=127)

FORMAT = Format(
    "Q6_K",
    block_size=256,
    block_bytes=210,
    decode_blocks=decode,
    fallback="Q8_0",
    largest=127 * 31 * LARGEST_HALF,
    summary="differences are hard to measure",
    grid=GRID,
)
