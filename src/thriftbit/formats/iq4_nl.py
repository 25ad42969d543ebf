"""IQ4_NL: blocks of 32 weights, x ≈ d·v, v one of sixteen uneven values; d in half precision. Laid out as Q4_0 is."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import LARGEST_HALF, ByteArray, FloatArray, Format
from thriftbit.formats.grid import Grid, ScaleKind
from thriftbit.formats.q4_0 import pack, unpack

VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
"""Closer together near zero, where most weights are."""


def decode(blocks: ByteArray) -> FloatArray:
    numbers = unpack(blocks)
    return numbers.d * VALUES[numbers.codes]


GRID = Grid(ScaleKind.HALF, VALUES, unpack, pack)

FORMAT = Format(
    "IQ4_NL",
    block_size=32,
    block_bytes=18,
    decode_blocks=decode,
    largest=113 * LARGEST_HALF,
    summary="4 bits for any width",
    grid=GRID,
)
