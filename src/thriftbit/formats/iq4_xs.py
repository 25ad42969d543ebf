"""IQ4_XS: super-blocks of 256 weights in eight sub-blocks, x ≈ d·(scale - 32)·v, v one of sixteen uneven values."""

from __future__ import annotations

import numpy as np

from thriftbit.formats import llama_cpp
from thriftbit.formats.format import LARGEST_HALF, ByteArray, FloatArray, Format
from thriftbit.formats.grid import Grid, Numbers, ScaleKind
from thriftbit.formats.iq4_values import VALUES, IQ4Values, levels_of, search_as_llama_cpp
from thriftbit.formats.packing import half_bytes, half_values, join_bits, split_bits
from thriftbit.formats.search import columns
from thriftbit.formats.symmetric import search_super_symmetric


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    columns_x, w = columns(x, importance, 32)
    alone = search_as_llama_cpp(x, columns_x, w, importance, 256)
    theirs = llama_cpp.nearest_multiples(alone, sub_blocks=8, lowest=-32)
    found = search_super_symmetric(columns_x, w, IQ4Values(), theirs, lowest=-32, spacing=1 / 64)
    return pack(Numbers.of_multiples(levels_of(found.values.T).reshape(-1, 256), found.d, found.scales))


def decode(blocks: ByteArray) -> FloatArray:
    numbers = unpack(blocks)
    values = VALUES[numbers.codes].reshape(-1, 8, 32)
    return ((numbers.d * numbers.scales)[:, :, None] * values).reshape(-1, 256)


def unpack(blocks: ByteArray) -> Numbers:
    scales = split_bits(blocks[:, 2:4], 2, 1) << np.uint8(4) | split_bits(blocks[:, 4:8], 4, 1)
    codes = split_bits(blocks[:, 8:], 4, 16)
    return Numbers.of_multiples(codes, half_values(blocks[:, :2]), scales.astype(np.float32) - 32)


def pack(numbers: Numbers) -> ByteArray:
    scales = (numbers.scales + 32).astype(np.uint8)
    high, low = join_bits(scales >> 4, 2, 1), join_bits(scales & 15, 4, 1)
    return np.hstack([half_bytes(numbers.d), high, low, join_bits(numbers.codes, 4, 16)])


FORMAT = Format(
    "IQ4_XS",
    block_size=256,
    block_bytes=136,
    decode_blocks=decode,
    encode_blocks=encode,
    fallback="IQ4_NL",
    largest=31 * 113 * LARGEST_HALF,
    summary="smallest good 4 bits",
    grid=Grid(ScaleKind.MULTIPLE, VALUES, unpack, pack, sub_blocks=8, lowest=-32, highest=31),
)
