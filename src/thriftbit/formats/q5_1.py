"""Q5_1: blocks of 32 weights, x ≈ d·l + m, l of 5 bits; d and m in half precision."""

from __future__ import annotations

import gguf
import numpy as np

from thriftbit.formats.affine import search_block
from thriftbit.formats.format import ByteArray, FloatArray, Format
from thriftbit.formats.packing import half_bytes, half_values, join_bits, split_bits
from thriftbit.formats.search import columns, inverse, nearest


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    columns_x, w = columns(x, importance, 32)
    d, m = search_block(x, columns_x, w, 31, hurried=importance is None)
    levels = nearest((columns_x + m) * inverse(d), 0, 31).T.astype(np.uint8)
    fifth_bits = np.packbits(levels >> 4, axis=1, bitorder="little")
    return np.hstack([half_bytes(d), half_bytes(-m), fifth_bits, join_bits(levels & 15, 4, 16)])


def decode(blocks: ByteArray) -> FloatArray:
    fifth_bits = np.unpackbits(blocks[:, 4:8], axis=1, bitorder="little")
    levels = split_bits(blocks[:, 8:], 4, 16) | fifth_bits << 4
    return half_values(blocks[:, :2]) * levels.astype(np.float32) + half_values(blocks[:, 2:4])


FORMAT = Format("Q5_1", gguf.GGMLQuantizationType.Q5_1, decode, encode, summary="5 bits with an offset")
