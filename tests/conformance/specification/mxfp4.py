"""How the kernel of MXFP4 searches."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.formats.mxfp4 import SCALES
from thriftbit.formats.packing import join_bits
from thriftbit.formats.plain import inverse

from .e2m1 import nearest_size, nibbles_of
from .search import columns, error


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    columns_x, w = columns(x, importance, 32)
    size = np.abs(columns_x)
    # candidates: the exponent that scales the largest weight to between 4 and 8 (6 is the largest value), and both
    # neighbours
    exponent = np.maximum((size.max(axis=0).view(np.uint32) >> 23).astype(np.int32) - 2, 32)
    best, least = exponent, np.full(exponent.shape, np.inf, np.float32)
    for step in (-1, 0, 1):
        s = SCALES[exponent + step]
        left = error(size, w, s * nearest_size(size * inverse(s)))
        better = left < least
        least, best = np.where(better, left, least), np.where(better, exponent + step, best)
    nibbles = nibbles_of(nearest_size(size * inverse(SCALES[best])), columns_x)
    return np.hstack([best.astype(np.uint8)[:, None], join_bits(nibbles.T, 4, 16)])
