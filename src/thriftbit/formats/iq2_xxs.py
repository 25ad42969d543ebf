"""IQ2_XXS: super-blocks of 256 weights in 8 sub-blocks. Eight weights are ± one of 256 codewords, times d·scale."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.codebooks import codebook
from thriftbit.formats.format import LARGEST_HALF, ByteArray, FloatArray, Format
from thriftbit.formats.packing import half_bytes, half_values, join_even_signs, split_even_signs
from thriftbit.formats.vector_grid import Signs, VectorGrid, VectorNumbers

ODD_EIGHTHS: FloatArray = (np.arange(1, 32, 2) / 8).astype(np.float32)
"""The scales of the IQ2 formats: 1/8, 3/8, … 31/8."""


def decode(blocks: ByteArray) -> FloatArray:
    return GRID.decode(unpack(blocks))


def unpack(blocks: ByteArray) -> VectorNumbers:
    words = np.ascontiguousarray(blocks[:, 2:]).view("<u4").reshape(-1, 8, 2)
    codes = np.ascontiguousarray(words[:, :, 0]).view(np.uint8).reshape(-1, 32)
    sevens = (words[:, :, 1:] >> np.arange(0, 28, 7, dtype=np.uint32) & 127).reshape(-1, 32)
    scales = (words[:, :, 1] >> 28).astype(np.uint8)
    shifts = np.zeros((len(blocks), 0), np.uint8)
    return VectorNumbers(half_values(blocks[:, :2]), scales, codes.astype(np.uint16), split_even_signs(sevens), shifts)


def pack(numbers: VectorNumbers) -> ByteArray:
    codes = np.ascontiguousarray(numbers.vectors.astype(np.uint8)).view("<u4")
    sevens = join_even_signs(numbers.signs).astype(np.uint32).reshape(-1, 8, 4) << np.arange(0, 28, 7, dtype=np.uint32)
    above = np.bitwise_or.reduce(sevens, axis=2) | numbers.scales.astype(np.uint32) << 28
    words = np.stack([codes, above.astype("<u4")], axis=2).reshape(-1, 16)
    return np.hstack([half_bytes(numbers.d), words.view(np.uint8)])


GRID = VectorGrid(codebook("iq2_xxs").vectors, ODD_EIGHTHS, Signs.EVEN, 8, unpack, pack)


FORMAT = Format(
    "IQ2_XXS",
    block_size=256,
    block_bytes=66,
    decode_blocks=decode,
    fallback="IQ4_NL",
    largest=31 / 8 * 43 * LARGEST_HALF,
    summary="smallest 2 bits; needs importance data",
    grid=GRID,
)
