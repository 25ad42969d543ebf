"""The 4-bit floating-point numbers (E2M1) of MXFP4 and NVFP4: a sign, two bits of exponent, one of mantissa. GGML
stores them doubled, so that they are whole, with half the scale."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray

SIZES = np.array([0, 1, 2, 3, 4, 6, 8, 12], np.float32)
VALUES: FloatArray = np.concatenate([-SIZES[:0:-1], SIZES])
"""float32 (15,): ascending; GGML has two bit patterns for zero, which are one value here."""

MINUS = np.uint8(8)
_ZERO = len(SIZES) - 1  # its place in VALUES


def codes_of(nibbles: ByteArray) -> ByteArray:
    """Return the places in VALUES of numbers as GGML stores them: a place in SIZES, and 8 for minus."""
    sizes = (nibbles & np.uint8(7)).astype(np.int8)
    return (np.where(nibbles & MINUS, -sizes, sizes) + _ZERO).astype(np.uint8)


def nibbles_of(codes: ByteArray) -> ByteArray:
    """The inverse of `codes_of`."""
    places = codes.astype(np.int8) - _ZERO
    return np.abs(places).astype(np.uint8) | np.where(places < 0, MINUS, np.uint8(0))
