"""Q5_0: blocks of 32 weights, x ≈ d·(l - 16), l of 5 bits."""

from __future__ import annotations

import gguf
import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray, Format
from thriftbit.formats.packing import half_bytes, half_values, join_bits, split_bits
from thriftbit.formats.search import columns, inverse, nearest
from thriftbit.formats.symmetric import search_whole_numbers


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    columns_x, w = columns(x, importance, 32)
    d = search_whole_numbers(x, columns_x, w, 16, hurried=importance is None)
    levels = (nearest(columns_x * inverse(d), -16, 15) + 16).T.astype(np.uint8)
    fifth_bits = np.packbits(levels >> 4, axis=1, bitorder="little")
    return np.hstack([half_bytes(d), fifth_bits, join_bits(levels & 15, 4, 16)])


def decode(blocks: ByteArray) -> FloatArray:
    fifth_bits = np.unpackbits(blocks[:, 2:6], axis=1, bitorder="little")
    levels = split_bits(blocks[:, 6:], 4, 16) | fifth_bits << 4
    return half_values(blocks[:, :2]) * (levels.astype(np.float32) - 16)


FORMAT = Format("Q5_0", gguf.GGMLQuantizationType.Q5_0, decode, encode, summary="plain 5 bits")
