"""IQ1_S: super-blocks of 256 weights in 8 sub-blocks. Eight weights are one of 2048 codewords of -1, 0 and 1, plus a
shift of ±1/8 that a sub-block shares, times d·scale."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.codebooks import codebook
from thriftbit.formats.format import LARGEST_HALF, ByteArray, FloatArray, Format
from thriftbit.formats.packing import half_bytes, half_values
from thriftbit.formats.vector_grid import Signs, VectorGrid, VectorNumbers

ODD: FloatArray = np.arange(1, 16, 2, dtype=np.float32)
"""The scales of the IQ1 formats."""

EIGHTHS: FloatArray = np.array([-1 / 8, 1 / 8], np.float32)
"""Their shifts. A set bit is minus, so the bit is 1 - the place in this table."""

_THREES = np.arange(0, 12, 3, dtype=np.uint16)  # where the words have the high bits of the four codes


def decode(blocks: ByteArray) -> FloatArray:
    return GRID.decode(unpack(blocks))


def unpack(blocks: ByteArray) -> VectorNumbers:
    words = np.ascontiguousarray(blocks[:, 34:]).view("<u2")
    high = (words[:, :, None] >> _THREES & 7).reshape(-1, 32)
    codes = (blocks[:, 2:34] | high << 8).astype(np.uint16)
    scales, shifts = (words >> 12 & 7).astype(np.uint8), 1 - (words >> 15).astype(np.uint8)
    signs = np.zeros((len(blocks), 256), np.bool_)
    return VectorNumbers(half_values(blocks[:, :2]), scales, codes, signs, shifts.astype(np.uint8))


def pack(numbers: VectorNumbers) -> ByteArray:
    high = np.bitwise_or.reduce((numbers.vectors >> 8).reshape(-1, 8, 4) << _THREES, axis=2)
    words = high | numbers.scales.astype(np.uint16) << 12 | (1 - numbers.shifts).astype(np.uint16) << 15
    low = (numbers.vectors & 255).astype(np.uint8)
    return np.hstack([half_bytes(numbers.d), low, words.astype("<u2").view(np.uint8)])


GRID = VectorGrid(
    codebook("iq1_s").vectors, ODD, Signs.NONE, sub_blocks=8, unpack=unpack, pack=pack, shift_blocks=8, shifts=EIGHTHS
)


FORMAT = Format(
    "IQ1_S",
    block_size=256,
    block_bytes=50,
    decode_blocks=decode,
    fallback="IQ4_NL",
    largest=15 * (1 + 1 / 8) * LARGEST_HALF,
    summary="fewest bits, with heavy losses",
    grid=GRID,
)
