"""IQ3_XXS: super-blocks of 256 weights in 8 sub-blocks. Four weights are ± one of 256 codewords, times d·scale. In
every eight weights an even number is minus."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.codebooks import codebook
from thriftbit.formats.format import LARGEST_HALF, ByteArray, FloatArray, Format
from thriftbit.formats.packing import half_bytes, half_values, join_even_signs, split_even_signs
from thriftbit.formats.vector_grid import Signs, VectorGrid, VectorNumbers

_SEVENS = np.arange(0, 28, 7, dtype=np.uint32)
"""Where in 32 bits the signs of eight weights begin. The scale is in the four bits above."""


def decode(blocks: ByteArray) -> FloatArray:
    return GRID.decode(unpack(blocks))


def unpack(blocks: ByteArray) -> VectorNumbers:
    words = np.ascontiguousarray(blocks[:, 66:]).view("<u4")
    sevens = (words[:, :, None] >> _SEVENS & 127).reshape(-1, 32)
    scales, shifts = (words >> 28).astype(np.uint8), np.zeros((len(blocks), 0), np.uint8)
    codes = blocks[:, 2:66].astype(np.uint16)
    return VectorNumbers(half_values(blocks[:, :2]), scales, codes, split_even_signs(sevens), shifts)


def pack(numbers: VectorNumbers) -> ByteArray:
    sevens = join_even_signs(numbers.signs).astype(np.uint32).reshape(-1, 8, 4) << _SEVENS
    words = np.bitwise_or.reduce(sevens, axis=2) | numbers.scales.astype(np.uint32) << 28
    return np.hstack([half_bytes(numbers.d), numbers.vectors.astype(np.uint8), words.astype("<u4").view(np.uint8)])


ODD_QUARTERS: FloatArray = (np.arange(1, 32, 2) / 4).astype(np.float32)
"""The scales: 1/4, 3/4, … 31/4."""

GRID = VectorGrid(codebook("iq3_xxs").vectors, ODD_QUARTERS, Signs.EVEN, 8, unpack, pack)

FORMAT = Format(
    "IQ3_XXS",
    block_size=256,
    block_bytes=98,
    decode_blocks=decode,
    fallback="IQ4_NL",
    largest=31 / 4 * 62 / 2 * LARGEST_HALF,  # half: as for IQ3_S
    summary="smallest 3 bits",
    grid=GRID,
)
