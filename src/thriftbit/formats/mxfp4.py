"""MXFP4: blocks of 32 weights, x ≈ s·v with s a power of two and v a 4-bit floating-point number (OCP Microscaling
Formats specification 1.0). Stored as GGML does: the biased exponent of 2·s, and v doubled, so that it is whole."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thriftbit.formats.e2m1 import BY_NIBBLE, nearest_size, nibbles_of
from thriftbit.formats.format import ByteArray, FloatArray, Format
from thriftbit.formats.packing import join_bits, split_bits
from thriftbit.formats.search import columns, error, inverse


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    columns_x, w = columns(x, importance, 32)
    size = np.abs(columns_x)
    # candidates: the exponent that scales the largest weight to between 4 and 8 (6 is the largest value), and both
    # neighbours
    exponent = np.maximum((size.max(axis=0).view(np.uint32) >> 23).astype(np.int32) - 2, 32)
    best, least = exponent, np.full(exponent.shape, np.inf, np.float32)
    for step in (-1, 0, 1):
        s = _half_scale(exponent + step)
        left = error(size, w, s * nearest_size(size * inverse(s)))
        better = left < least
        least, best = np.where(better, left, least), np.where(better, exponent + step, best)
    nibbles = nibbles_of(nearest_size(size * inverse(_half_scale(best))), columns_x)
    return np.hstack([best.astype(np.uint8)[:, None], join_bits(nibbles.T, 4, 16)])


def decode(blocks: ByteArray) -> FloatArray:
    x: FloatArray = _half_scale(blocks[:, :1].astype(np.int32)) * BY_NIBBLE[split_bits(blocks[:, 1:], 4, 16)]
    return x


def _half_scale(exponent: NDArray[np.int32]) -> FloatArray:
    scale: FloatArray = np.ldexp(np.ones_like(exponent, np.float32), exponent - 128)
    return scale


FORMAT = Format(
    "MXFP4",
    block_size=32,
    block_bytes=17,
    decode_blocks=decode,
    encode_blocks=encode,
    largest=2.0**60,  # the search squares errors in single precision
    summary="what gpt-oss was published in",
)
