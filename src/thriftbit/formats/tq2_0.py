"""TQ2_0: blocks of 256 weights, x ≈ d·t, t one of -1, 0, 1 in two bits."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray, Format
from thriftbit.formats.grid import Grid, Numbers, ScaleKind, whole_numbers
from thriftbit.formats.packing import half_bytes, half_values, join_bits, split_bits


def decode(blocks: ByteArray) -> FloatArray:
    return unpack(blocks).symmetric_weights(1)


def unpack(blocks: ByteArray) -> Numbers:
    return Numbers.of_blocks(split_bits(blocks[:, :64], 2, 32), half_values(blocks[:, 64:66]))


def pack(numbers: Numbers) -> ByteArray:
    return np.hstack([join_bits(numbers.codes, 2, 32), half_bytes(numbers.d)])


GRID = Grid(ScaleKind.HALF, whole_numbers(-1, 3), unpack, pack)


FORMAT = Format(
    "TQ2_0",
    block_size=256,
    block_bytes=66,
    decode_blocks=decode,
    fallback="Q4_0",
    summary="for ternary models",
    grid=GRID,
)
