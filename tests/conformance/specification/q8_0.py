"""How the kernel of Q8_0 searches."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.formats.grid import Numbers
from thriftbit.formats.packing import half
from thriftbit.formats.plain import inverse
from thriftbit.formats.q8_0 import pack

from .search import columns, error, nearest

PLACES = (127, 127.25, 127.5, 128, 129, 131, 135, 140)
"""Which level the largest weight would take. What is above 127 is cut off, so that the others get finer steps."""


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    columns_x, w = columns(x, importance, 32)
    largest = np.abs(columns_x).max(axis=0)
    best_d, least = np.zeros_like(largest), np.full_like(largest, np.inf)
    for place in PLACES:
        d = half(largest / np.float32(place))
        left = error(columns_x, w, d * nearest(columns_x * inverse(d), -127, 127))
        better = left < least
        least, best_d = np.where(better, left, least), np.where(better, d, best_d)
    levels = nearest(columns_x * inverse(best_d), -127, 127).T
    return pack(Numbers.of_blocks((levels + 127).astype(np.uint8), best_d))
