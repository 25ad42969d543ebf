"""TQ1_0: blocks of 256 weights, x ≈ d·t, t one of -1, 0, 1, five to a byte. A byte is a fraction of 256 in base three,
rounded up. A decoder multiplies it by a power of three and keeps the high bits to get a digit."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray, Format
from thriftbit.formats.grid import Grid, Numbers, ScaleKind, whole_numbers
from thriftbit.formats.packing import half_bytes, half_values

PARTS = ((0, 32, 5), (32, 16, 5), (48, 4, 4))
"""(first byte, bytes, digits in each byte): digit i of byte j is weight i * bytes + j of the part."""

POWERS = np.array([81, 27, 9, 3, 1])


def decode(blocks: ByteArray) -> FloatArray:
    return unpack(blocks).symmetric_weights(1)


def unpack(blocks: ByteArray) -> Numbers:
    levels = []
    for first, size, digits in PARTS:
        fractions = blocks[:, None, first : first + size] * np.array([3**i for i in range(digits)], np.uint8)[:, None]
        levels.append((fractions.astype(np.uint16) * 3 >> 8).reshape(len(blocks), -1))
    return Numbers.of_blocks(np.hstack(levels).astype(np.uint8), half_values(blocks[:, 52:54]))


def pack(numbers: Numbers) -> ByteArray:
    packed, start = [], 0
    for _, size, digits in PARTS:
        part = numbers.codes[:, start : start + size * digits].reshape(-1, digits, size).astype(int)
        number = (part * POWERS[:digits, None]).sum(axis=1)
        packed.append(((number * 256 + 242) // 243).astype(np.uint8))
        start += size * digits
    return np.hstack([*packed, half_bytes(numbers.d)])


GRID = Grid(ScaleKind.HALF, whole_numbers(-1, 3), unpack, pack)


FORMAT = Format(
    "TQ1_0",
    block_size=256,
    block_bytes=54,
    decode_blocks=decode,
    fallback="Q4_0",
    summary="for ternary models",
    grid=GRID,
)
