"""Q1_0: blocks of 128 weights, x ≈ ±d. The sign is that of x, and d the weighted mean of the magnitudes: no other
choice loses less."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray, Format
from thriftbit.formats.grid import Grid, Numbers, ScaleKind
from thriftbit.formats.packing import half_bytes, half_values

VALUES = np.array([-1, 1], np.float32)


def decode(blocks: ByteArray) -> FloatArray:
    numbers = unpack(blocks)
    return np.where(numbers.codes > 0, numbers.d, -numbers.d)


def unpack(blocks: ByteArray) -> Numbers:
    codes: ByteArray = np.unpackbits(blocks[:, 2:], axis=1, bitorder="little")
    return Numbers.of_blocks(codes, half_values(blocks[:, :2]))


def pack(numbers: Numbers) -> ByteArray:
    return np.hstack([half_bytes(numbers.d), np.packbits(numbers.codes, axis=1, bitorder="little")])


FORMAT = Format(
    "Q1_0",
    block_size=128,
    block_bytes=18,
    decode_blocks=decode,
    fallback="Q4_0",
    summary="for models of one bit",
    grid=Grid(ScaleKind.HALF, VALUES, unpack, pack),
)
