"""MXFP4: blocks of 32 weights, x ≈ s·v with s a power of two and v a 4-bit floating-point number (OCP Microscaling
Formats specification 1.0). Stored as GGML does: the biased exponent of 2·s, and v doubled, so that it is whole."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.e2m1 import VALUES, codes_of, nibbles_of
from thriftbit.formats.format import ByteArray, FloatArray, Format
from thriftbit.formats.grid import Grid, Numbers, ScaleKind
from thriftbit.formats.packing import join_bits, split_bits

SCALES: FloatArray = np.ldexp(np.ones(256, np.float32), np.arange(256) - 128)
"""float32 (256,): half of s, by the stored exponent."""


def decode(blocks: ByteArray) -> FloatArray:
    return GRID.decode(unpack(blocks))


def unpack(blocks: ByteArray) -> Numbers:
    return Numbers.of_scales(codes_of(split_bits(blocks[:, 1:], 4, 16)), SCALES[blocks[:, :1]])


def pack(numbers: Numbers) -> ByteArray:
    exponents = np.searchsorted(SCALES, numbers.scales).astype(np.uint8)
    return np.hstack([exponents, join_bits(nibbles_of(numbers.codes), 4, 16)])


GRID = Grid(ScaleKind.TABLE, VALUES, unpack, pack, scale_table=SCALES)


FORMAT = Format(
    "MXFP4",
    block_size=32,
    block_bytes=17,
    decode_blocks=decode,
    largest=2.0**60,  # the search squares errors in single precision
    summary="what gpt-oss was published in",
    grid=GRID,
)
