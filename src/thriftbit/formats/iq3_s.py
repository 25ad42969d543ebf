"""IQ3_S: super-blocks of 256 weights in 8 sub-blocks. Four weights are ± one of 512 codewords, times d·scale."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.codebooks import codebook
from thriftbit.formats.format import LARGEST_HALF, ByteArray, FloatArray, Format
from thriftbit.formats.packing import half_bytes, half_values, join_bits, split_bits
from thriftbit.formats.vector_grid import Signs, VectorGrid, VectorNumbers


def decode(blocks: ByteArray) -> FloatArray:
    return GRID.decode(unpack(blocks))


def unpack(blocks: ByteArray) -> VectorNumbers:
    codes = blocks[:, 2:66] | split_bits(blocks[:, 66:74], 1, 1).astype(np.uint16) << np.uint16(8)
    signs = np.unpackbits(blocks[:, 74:106], axis=1, bitorder="little").astype(np.bool_)
    shifts = np.zeros((len(blocks), 0), np.uint8)
    return VectorNumbers(half_values(blocks[:, :2]), split_bits(blocks[:, 106:], 4, 1), codes, signs, shifts)


def pack(numbers: VectorNumbers) -> ByteArray:
    low, high = (numbers.vectors & 255).astype(np.uint8), join_bits(numbers.vectors >> np.uint16(8), 1, 1)
    signs = np.packbits(numbers.signs, axis=1, bitorder="little")
    return np.hstack([half_bytes(numbers.d), low, high, signs, join_bits(numbers.scales, 4, 1)])


ODD_NUMBERS: FloatArray = np.arange(1, 32, 2, dtype=np.float32)
"""The scales: 1, 3, … 31."""

GRID = VectorGrid(codebook("iq3_s").vectors, ODD_NUMBERS, Signs.FREE, 8, unpack, pack)

FORMAT = Format(
    "IQ3_S",
    block_size=256,
    block_bytes=110,
    decode_blocks=decode,
    fallback="IQ4_NL",
    largest=31 * 15 / 2 * LARGEST_HALF,  # half: the best scale may be twice as large
    summary="good 3 bits",
    grid=GRID,
)
