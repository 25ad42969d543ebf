"""IQ2_XS: super-blocks of 256 weights in 16 sub-blocks. Eight weights are ± one of 512 codewords, times d·scale."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.codebooks import codebook
from thriftbit.formats.format import LARGEST_HALF, ByteArray, FloatArray, Format
from thriftbit.formats.iq2_xxs import ODD_EIGHTHS
from thriftbit.formats.packing import (
    half_bytes,
    half_values,
    join_bits,
    join_even_signs,
    split_bits,
    split_even_signs,
)
from thriftbit.formats.vector_grid import Signs, VectorGrid, VectorNumbers


def decode(blocks: ByteArray) -> FloatArray:
    return GRID.decode(unpack(blocks))


def unpack(blocks: ByteArray) -> VectorNumbers:
    words = np.ascontiguousarray(blocks[:, 2:66]).view("<u2").astype(np.uint16)
    shifts = np.zeros((len(blocks), 0), np.uint8)
    signs = split_even_signs(words >> np.uint16(9))
    return VectorNumbers(
        half_values(blocks[:, :2]), split_bits(blocks[:, 66:], 4, 1), words & np.uint16(511), signs, shifts
    )


def pack(numbers: VectorNumbers) -> ByteArray:
    words = numbers.vectors | join_even_signs(numbers.signs).astype(np.uint16) << np.uint16(9)
    codes = words.astype("<u2").view(np.uint8)
    return np.hstack([half_bytes(numbers.d), codes, join_bits(numbers.scales, 4, 1)])


GRID = VectorGrid(codebook("iq2_xs").vectors, ODD_EIGHTHS, Signs.EVEN, 16, unpack, pack)


FORMAT = Format(
    "IQ2_XS",
    block_size=256,
    block_bytes=74,
    decode_blocks=decode,
    fallback="IQ4_NL",
    largest=31 / 8 * 43 * LARGEST_HALF,
    summary="2 bits, a little more; needs importance data",
    grid=GRID,
)
