"""Q2_0: blocks of 64 weights, x ≈ d·v, v one of -1, 0, 1, 2 in two bits. d may be negative."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray, Format
from thriftbit.formats.grid import Grid, Numbers, ScaleKind, whole_numbers
from thriftbit.formats.packing import half_bytes, half_values, join_bits, split_bits
from thriftbit.formats.search import columns, half, inverse, nearest, signed_extreme, total

_STARTS = (1.8, 2.3, 2.8, 3.5, -1.1, -1.5, -2, -2.6)
"""Where the weight of largest magnitude is put, before v is rounded and d fitted."""


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    columns_x, w = columns(x, importance, 64)
    extreme = signed_extreme(columns_x)
    d, gain = np.zeros_like(extreme), np.zeros_like(extreme)
    for start in _STARTS:
        v = nearest(columns_x * (inverse(extreme) * np.float32(start)), -1, 2)
        sum_xv = total(w * v * columns_x)
        fitted = sum_xv * inverse(total(w * v * v))
        better = fitted * sum_xv > gain
        d, gain = np.where(better, fitted, d), np.where(better, fitted * sum_xv, gain)
    d = half(d)
    return pack(Numbers.of_blocks((nearest(columns_x * inverse(d), -1, 2) + 1).T.astype(np.uint8), d))


def decode(blocks: ByteArray) -> FloatArray:
    numbers = unpack(blocks)
    return numbers.d * (numbers.codes.astype(np.float32) - 1)


def unpack(blocks: ByteArray) -> Numbers:
    return Numbers.of_blocks(split_bits(blocks[:, 2:], 2, 1), half_values(blocks[:, :2]))


def pack(numbers: Numbers) -> ByteArray:
    return np.hstack([half_bytes(numbers.d), join_bits(numbers.codes, 2, 1)])


FORMAT = Format(
    "Q2_0",
    block_size=64,
    block_bytes=18,
    decode_blocks=decode,
    encode_blocks=encode,
    fallback="Q4_0",
    summary="for models of two bits",
    grid=Grid(ScaleKind.HALF, whole_numbers(-1, 4), unpack, pack),
)
