"""IQ1_M: super-blocks of 256 weights in 16 sub-blocks. Eight weights are one of IQ1_S's 2048 codewords, plus a shift of
±1/8 of their own, times d·scale. d has no place of its own: each of the four words with scales has four bits of it."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.codebooks import codebook
from thriftbit.formats.format import LARGEST_HALF, ByteArray, FloatArray, Format
from thriftbit.formats.iq1_s import EIGHTHS, ODD
from thriftbit.formats.packing import half_bytes, half_values, join_bits, split_bits
from thriftbit.formats.vector_grid import Signs, VectorGrid, VectorNumbers

_THREES = np.arange(0, 12, 3, dtype=np.uint16)  # where the words have the four scales
_FOURS = np.arange(0, 16, 4, dtype=np.uint16)  # where d has the top bits of the four words


def decode(blocks: ByteArray) -> FloatArray:
    return GRID.decode(unpack(blocks))


def unpack(blocks: ByteArray) -> VectorNumbers:
    words = np.ascontiguousarray(blocks[:, 48:]).view("<u2")
    d = np.bitwise_or.reduce(words >> 12 << _FOURS, axis=1).astype("<u2").view(np.uint8).reshape(-1, 2)
    scales = (words[:, :, None] >> _THREES & 7).astype(np.uint8).reshape(-1, 16)
    above = split_bits(blocks[:, 32:48], 4, 1)  # three bits of the code, and one for a negative shift
    codes = blocks[:, :32] | (above & 7).astype(np.uint16) << np.uint16(8)
    signs, shifts = np.zeros((len(blocks), 256), np.bool_), (1 - (above >> 3)).astype(np.uint8)
    return VectorNumbers(half_values(d), scales, codes, signs, shifts)


def pack(numbers: VectorNumbers) -> ByteArray:
    low, high = (numbers.vectors & 255).astype(np.uint8), (numbers.vectors >> 8).astype(np.uint8)
    above = join_bits(high | (1 - numbers.shifts) << np.uint8(3), 4, 1)
    d = half_bytes(numbers.d.reshape(-1)).view("<u2")
    words = np.bitwise_or.reduce(numbers.scales.astype(np.uint16).reshape(-1, 4, 4) << _THREES, axis=2)
    words |= (d >> _FOURS & 15) << 12
    return np.hstack([low, above, words.astype("<u2").view(np.uint8)])


GRID = VectorGrid(
    codebook("iq1_s").vectors, ODD, Signs.NONE, sub_blocks=16, unpack=unpack, pack=pack, shift_blocks=32, shifts=EIGHTHS
)


FORMAT = Format(
    "IQ1_M",
    block_size=256,
    block_bytes=56,
    decode_blocks=decode,
    fallback="IQ4_NL",
    largest=15 * (1 + 1 / 8) * LARGEST_HALF,
    summary="1.75 bits, with heavy losses",
    grid=GRID,
)
