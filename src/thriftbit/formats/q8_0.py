"""Q8_0: blocks of 32 weights, x ≈ d·l, d in half precision, l a signed byte (-127 to 127)."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import LARGEST_HALF, ByteArray, FloatArray, Format
from thriftbit.formats.grid import Grid, Numbers, ScaleKind, whole_numbers
from thriftbit.formats.packing import half_bytes, half_values


def decode(blocks: ByteArray) -> FloatArray:
    return half_values(blocks[:, :2]) * blocks[:, 2:].view(np.int8).astype(np.float32)


def unpack(blocks: ByteArray) -> Numbers:
    """-128, which nobody writes, becomes -127"""
    codes = np.maximum(blocks[:, 2:].view(np.int8), -127).astype(np.int16) + 127
    return Numbers.of_blocks(codes.astype(np.uint8), half_values(blocks[:, :2]))


def pack(numbers: Numbers) -> ByteArray:
    levels = numbers.codes.astype(np.int16) - 127
    return np.hstack([half_bytes(numbers.d), levels.astype(np.int8).view(np.uint8)])


GRID = Grid(ScaleKind.HALF, whole_numbers(-127, 255), unpack, pack)

FORMAT = Format(
    "Q8_0",
    block_size=32,
    block_bytes=34,
    decode_blocks=decode,
    largest=127 * LARGEST_HALF,
    summary="nearly lossless",
    grid=GRID,
)
