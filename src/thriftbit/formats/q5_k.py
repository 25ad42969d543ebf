"""Q5_K: super-blocks of 256 weights in eight sub-blocks, x ≈ d·scale·l - d_min·min; l has 5 bits, scale and min 6."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import LARGEST_HALF, ByteArray, FloatArray, Format
from thriftbit.formats.grid import Numbers
from thriftbit.formats.k_with_mins import grid, pack_head, unpack_head
from thriftbit.formats.packing import join_bits, split_bits


def decode(blocks: ByteArray) -> FloatArray:
    return unpack(blocks).affine_weights()


def unpack(blocks: ByteArray) -> Numbers:
    codes = split_bits(blocks[:, 48:], 4, 32) | split_bits(blocks[:, 16:48], 1, 32) << np.uint8(4)
    return unpack_head(blocks, codes)


def pack(numbers: Numbers) -> ByteArray:
    return np.hstack([pack_head(numbers), join_bits(numbers.codes >> 4, 1, 32), join_bits(numbers.codes & 15, 4, 32)])


GRID = grid(31, unpack, pack)

FORMAT = Format(
    "Q5_K",
    block_size=256,
    block_bytes=176,
    decode_blocks=decode,
    fallback="Q5_1",
    largest=63 * LARGEST_HALF,
    summary="hard to tell from full",
    grid=GRID,
)
