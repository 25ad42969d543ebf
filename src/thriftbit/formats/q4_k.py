"""Q4_K: super-blocks of 256 weights in eight sub-blocks, x ≈ d·scale·l - d_min·min; l has 4 bits, scale and min 6."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import LARGEST_HALF, ByteArray, FloatArray, Format
from thriftbit.formats.grid import Numbers
from thriftbit.formats.k_with_mins import grid, pack_head, unpack_head
from thriftbit.formats.packing import join_bits, split_bits


def decode(blocks: ByteArray) -> FloatArray:
    return unpack(blocks).affine_weights()


def unpack(blocks: ByteArray) -> Numbers:
    return unpack_head(blocks, split_bits(blocks[:, 16:], 4, 32))


def pack(numbers: Numbers) -> ByteArray:
    return np.hstack([pack_head(numbers), join_bits(numbers.codes, 4, 32)])


GRID = grid(15, unpack, pack)

FORMAT = Format(
    "Q4_K",
    block_size=256,
    block_bytes=144,
    decode_blocks=decode,
    fallback="Q5_0",
    largest=63 * LARGEST_HALF,
    summary="small and good",
    grid=GRID,
)
