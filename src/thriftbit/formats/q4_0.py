"""Q4_0: blocks of 32 weights, x ≈ d·(l - 8), l of 4 bits. Old and plain, and fast where K-quants are not."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import LARGEST_HALF, ByteArray, FloatArray, Format
from thriftbit.formats.grid import Grid, Numbers, ScaleKind, whole_numbers
from thriftbit.formats.packing import half_bytes, half_values, join_bits, split_bits
from thriftbit.formats.search import columns, inverse, nearest
from thriftbit.formats.symmetric import search_whole_numbers


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    columns_x, w = columns(x, importance, 32)
    d = search_whole_numbers(x, columns_x, w, 8, hurried=importance is None)
    levels = (nearest(columns_x * inverse(d), -8, 7) + 8).T.astype(np.uint8)
    return pack(Numbers.of_blocks(levels, d))


def decode(blocks: ByteArray) -> FloatArray:
    numbers = unpack(blocks)
    return numbers.d * (numbers.codes.astype(np.float32) - 8)


def unpack(blocks: ByteArray) -> Numbers:
    return Numbers.of_blocks(split_bits(blocks[:, 2:], 4, 16), half_values(blocks[:, :2]))


def pack(numbers: Numbers) -> ByteArray:
    return np.hstack([half_bytes(numbers.d), join_bits(numbers.codes, 4, 16)])


FORMAT = Format(
    "Q4_0",
    block_size=32,
    block_bytes=18,
    decode_blocks=decode,
    encode_blocks=encode,
    largest=7 * LARGEST_HALF,
    summary="plain 4 bits, fast on phones",
    grid=Grid(ScaleKind.HALF, whole_numbers(-8, 16), unpack, pack),
)
