"""Q4_0: blocks of 32 weights, x ≈ d·(l - 8), l of 4 bits. Old and plain, and fast where K-quants are not."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import LARGEST_HALF, ByteArray, FloatArray, Format
from thriftbit.formats.grid import Grid, Numbers, ScaleKind, whole_numbers
from thriftbit.formats.packing import half_bytes, half_values, join_bits, split_bits


def decode(blocks: ByteArray) -> FloatArray:
    return unpack(blocks).symmetric_weights(8)


def unpack(blocks: ByteArray) -> Numbers:
    return Numbers.of_blocks(split_bits(blocks[:, 2:], 4, 16), half_values(blocks[:, :2]))


def pack(numbers: Numbers) -> ByteArray:
    return np.hstack([half_bytes(numbers.d), join_bits(numbers.codes, 4, 16)])


GRID = Grid(ScaleKind.HALF, whole_numbers(-8, 16), unpack, pack)

FORMAT = Format(
    "Q4_0",
    block_size=32,
    block_bytes=18,
    decode_blocks=decode,
    largest=7 * LARGEST_HALF,
    summary="plain 4 bits, fast on phones",
    grid=GRID,
)
