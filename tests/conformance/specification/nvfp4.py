"""How the kernel of NVFP4 searches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.formats.nvfp4 import SCALES
from thriftbit.formats.packing import join_bits
from thriftbit.formats.plain import inverse

from .e2m1 import nearest_size, nibbles_of
from .search import columns, error

_TRIED = range(-3, 7)
"""The scales next to the one that puts the largest weight at the largest value, and further up."""


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    columns_x, w = columns(x, importance, 16)
    size = np.abs(columns_x)
    first = _byte_near(size.max(axis=0) / np.float32(6))
    best, least = first, np.full(first.shape, np.inf, np.float32)
    for step in _TRIED:
        byte = np.clip(first + step, 0, len(SCALES) - 1)
        s = SCALES[byte]
        left = error(size, w, s * nearest_size(size * inverse(s)))
        better = left < least
        least, best = np.where(better, left, least), np.where(better, byte, best)
    nibbles = nibbles_of(nearest_size(size * inverse(SCALES[best])), columns_x)
    return np.hstack([best.astype(np.uint8).reshape(-1, 4), join_bits(nibbles.T.reshape(-1, 64), 4, 8)])


def _byte_near(s: FloatArray) -> NDArray[np.int32]:
    """Return the byte of the E4M3 number nearest to each s ≥ 0. Below 2⁻⁶ they are multiples of 2⁻⁹."""
    rounded = (s.view(np.int32) + (1 << 19) >> 20) - (120 << 3)
    byte = np.where(s < 2.0**-6, (s * np.float32(512) + np.float32(0.5)).astype(np.int32), rounded)
    return np.minimum(byte, len(SCALES) - 1).astype(np.int32)
