"""IQ2_S: super-blocks of 256 weights in 16 sub-blocks. Eight weights are ± one of 1024 codewords, times d·scale."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.codebooks import codebook
from thriftbit.formats.format import LARGEST_HALF, ByteArray, FloatArray, Format
from thriftbit.formats.iq2_xxs import ODD_EIGHTHS
from thriftbit.formats.packing import half_bytes, half_values, join_bits, split_bits
from thriftbit.formats.vector_grid import Signs, VectorGrid, VectorNumbers


def decode(blocks: ByteArray) -> FloatArray:
    return GRID.decode(unpack(blocks))


def unpack(blocks: ByteArray) -> VectorNumbers:
    codes = blocks[:, 2:34] | split_bits(blocks[:, 66:74], 2, 1).astype(np.uint16) << np.uint16(8)
    signs = np.unpackbits(blocks[:, 34:66], axis=1, bitorder="little").astype(np.bool_)
    shifts = np.zeros((len(blocks), 0), np.uint8)
    return VectorNumbers(half_values(blocks[:, :2]), split_bits(blocks[:, 74:], 4, 1), codes, signs, shifts)


def pack(numbers: VectorNumbers) -> ByteArray:
    low, high = (numbers.vectors & 255).astype(np.uint8), join_bits(numbers.vectors >> np.uint16(8), 2, 1)
    signs = np.packbits(numbers.signs, axis=1, bitorder="little")
    return np.hstack([half_bytes(numbers.d), low, signs, high, join_bits(numbers.scales, 4, 1)])


GRID = VectorGrid(codebook("iq2_s").vectors, ODD_EIGHTHS, Signs.FREE, 16, unpack, pack)


FORMAT = Format(
    "IQ2_S",
    block_size=256,
    block_bytes=82,
    decode_blocks=decode,
    fallback="IQ4_NL",
    largest=31 / 8 * 43 * LARGEST_HALF,
    summary="best 2 bits; needs importance data",
    grid=GRID,
)
