"""TQ2_0: blocks of 256 weights, x ≈ d·t, t one of -1, 0, 1 in two bits."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray, Format
from thriftbit.formats.packing import half_bytes, half_values, join_bits, split_bits
from thriftbit.formats.ternary import search_ternary


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    d, levels = search_ternary(x, importance)
    return np.hstack([join_bits(levels, 2, 32), half_bytes(d)])


def decode(blocks: ByteArray) -> FloatArray:
    return half_values(blocks[:, 64:66]) * (split_bits(blocks[:, :64], 2, 32).astype(np.float32) - 1)


FORMAT = Format(
    "TQ2_0",
    block_size=256,
    block_bytes=66,
    decode_blocks=decode,
    encode_blocks=encode,
    fallback="Q4_0",
    summary="for ternary models",
)
