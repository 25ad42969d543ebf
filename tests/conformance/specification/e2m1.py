"""What the searches of MXFP4 and NVFP4 share."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.e2m1 import MINUS, SIZES
from thriftbit.formats.format import ByteArray, FloatArray


def nearest_size(y: FloatArray) -> FloatArray:
    """Return the nearest of SIZES to each y ≥ 0. Of two equally near, the even multiple."""
    y = np.minimum(y, SIZES[-1])
    step = np.where(y < 4, np.float32(1), np.where(y < 8, np.float32(2), np.float32(4)))
    sizes: FloatArray = np.rint(y / step) * step
    return sizes


def nibbles_of(sizes: FloatArray, x: FloatArray) -> ByteArray:
    """Return the bits that GGML stores: a place in SIZES, and 8 where x is negative."""
    return np.searchsorted(SIZES, sizes).astype(np.uint8) | np.where(x < 0, MINUS, np.uint8(0))
