"""Q8_0: blocks of 32 weights, x ≈ d·l, d in half precision, l a signed byte (-127 to 127)."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import LARGEST_HALF, ByteArray, FloatArray, Format
from thriftbit.formats.grid import Grid, Numbers, ScaleKind, whole_numbers
from thriftbit.formats.packing import half_bytes, half_values
from thriftbit.formats.search import columns, error, half, inverse, nearest

PLACES = (127, 127.25, 127.5, 128, 129, 131, 135, 140)
"""Which level the largest weight would take. What is above 127 is cut off, so that the others get finer steps."""


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    columns_x, w = columns(x, importance, 32)
    largest = np.abs(columns_x).max(axis=0)
    best_d, least = np.zeros_like(largest), np.full_like(largest, np.inf)
    for place in PLACES:
        d = half(largest / np.float32(place))
        left = error(columns_x, w, d * nearest(columns_x * inverse(d), -127, 127))
        better = left < least
        least, best_d = np.where(better, left, least), np.where(better, d, best_d)
    levels = nearest(columns_x * inverse(best_d), -127, 127).T
    return pack(Numbers.of_blocks((levels + 127).astype(np.uint8), best_d))


def decode(blocks: ByteArray) -> FloatArray:
    return half_values(blocks[:, :2]) * blocks[:, 2:].view(np.int8).astype(np.float32)


def unpack(blocks: ByteArray) -> Numbers:
    """-128, which nobody writes, becomes -127"""
    codes = np.maximum(blocks[:, 2:].view(np.int8), -127).astype(np.int16) + 127
    return Numbers.of_blocks(codes.astype(np.uint8), half_values(blocks[:, :2]))


def pack(numbers: Numbers) -> ByteArray:
    levels = numbers.codes.astype(np.int16) - 127
    return np.hstack([half_bytes(numbers.d), levels.astype(np.int8).view(np.uint8)])


FORMAT = Format(
    "Q8_0",
    block_size=32,
    block_bytes=34,
    decode_blocks=decode,
    encode_blocks=encode,
    largest=127 * LARGEST_HALF,
    summary="nearly lossless",
    grid=Grid(ScaleKind.HALF, whole_numbers(-127, 255), unpack, pack),
)
