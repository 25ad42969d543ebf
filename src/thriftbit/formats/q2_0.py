"""Q2_0: blocks of 64 weights, x ≈ d·v, v one of -1, 0, 1, 2 in two bits. d may be negative."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray, Format
from thriftbit.formats.grid import Grid, Numbers, ScaleKind, whole_numbers
from thriftbit.formats.packing import half_bytes, half_values, join_bits, split_bits


def decode(blocks: ByteArray) -> FloatArray:
    return unpack(blocks).symmetric_weights(1)


def unpack(blocks: ByteArray) -> Numbers:
    return Numbers.of_blocks(split_bits(blocks[:, 2:], 2, 1), half_values(blocks[:, :2]))


def pack(numbers: Numbers) -> ByteArray:
    return np.hstack([half_bytes(numbers.d), join_bits(numbers.codes, 2, 1)])


FORMAT = Format(
    "Q2_0",
    block_size=64,
    block_bytes=18,
    decode_blocks=decode,
    fallback="Q4_0",
    summary="for models of two bits",
    grid=Grid(ScaleKind.HALF, whole_numbers(-1, 4), unpack, pack),
)
