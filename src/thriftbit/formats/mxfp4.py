"""MXFP4: blocks of 32 weights, x ≈ s·v with s a power of two and v a 4-bit floating-point number (OCP Microscaling
Formats specification 1.0). Stored as GGML does: the biased exponent of 2·s, and v doubled, so that it is whole."""

from __future__ import annotations

import gguf
import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray, Format
from thriftbit.formats.packing import join_bits, split_bits
from thriftbit.formats.search import columns, error, inverse

SIZES = np.array([0, 1, 2, 3, 4, 6, 8, 12], np.float32)
_BETWEEN = (SIZES[:-1] + SIZES[1:]) / 2


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    columns_x, w = columns(x, importance, 32)
    size = np.abs(columns_x)
    # the exponent that puts the largest weight between 4 and 8, of the 6 that fits; and its neighbours
    exponent = np.maximum((size.max(axis=0).view("u4") >> 23).astype("i4") - 2, 32)
    best, least = exponent, np.full(exponent.shape, np.inf, np.float32)
    for step in (-1, 0, 1):
        s = _half_scale(exponent + step)
        left = error(size, w, s * SIZES[np.searchsorted(_BETWEEN, size * inverse(s))])
        better = left < least
        least, best = np.where(better, left, least), np.where(better, exponent + step, best)
    levels = np.searchsorted(_BETWEEN, size * inverse(_half_scale(best))).astype("u1")
    levels |= (columns_x < 0).astype("u1") << 3
    return np.hstack([best.astype("u1")[:, None], join_bits(levels.T, 4, 16)])


def decode(blocks: ByteArray) -> FloatArray:
    values = np.concatenate([SIZES, -SIZES])
    return np.ldexp(np.float32(1), blocks[:, :1].astype("i4") - 128) * values[split_bits(blocks[:, 1:], 4, 16)]


def _half_scale(exponent: np.typing.NDArray[np.int32]) -> FloatArray:
    return np.ldexp(np.float32(1), exponent - 128)


FORMAT = Format("MXFP4", gguf.GGMLQuantizationType.MXFP4, decode, encode, summary="what gpt-oss was published in")
