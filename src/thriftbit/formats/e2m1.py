"""The 4-bit floating-point numbers (E2M1) of MXFP4 and NVFP4: a sign, two bits of exponent, one of mantissa. GGML
stores them doubled, so that they are whole, with half the scale."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray

SIZES = np.array([0, 1, 2, 3, 4, 6, 8, 12], np.float32)
BY_NIBBLE = np.concatenate([SIZES, np.float32(0) - SIZES])
"""float32 (16,): what the stored bits stand for. Both zeros are positive."""

_MINUS = np.uint8(8)


def nearest_size(y: FloatArray) -> FloatArray:
    """Return the nearest of SIZES to each y ≥ 0. Of two equally near, the even multiple."""
    y = np.minimum(y, SIZES[-1])
    step = np.where(y < 4, np.float32(1), np.where(y < 8, np.float32(2), np.float32(4)))
    sizes: FloatArray = np.rint(y / step) * step
    return sizes


def nibbles_of(sizes: FloatArray, x: FloatArray) -> ByteArray:
    """Return the bits that GGML stores: a place in SIZES, and 8 where x is negative."""
    return np.searchsorted(SIZES, sizes).astype(np.uint8) | np.where(x < 0, _MINUS, np.uint8(0))
