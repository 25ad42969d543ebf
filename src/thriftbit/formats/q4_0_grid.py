"""Weights that lie on Q4_0's grid already, found by their values.

A model that was trained for Q4_0 (quantization-aware training) is published in 16 bits, and every weight is a whole
number from -8 to 7 times a scale of its block, rounded to those 16 bits. The encoder's search would find a scale close
to that; here the very codes and a scale are found that give the same 16-bit weights again. A block of weights that were
not rounded to such a grid never passes: all 32 must.

For each code that the largest weight of a block may have, every weight says between which bounds the scale must be, by
its own code and by the rounding to 16 bits. If the bounds leave a number that half precision has, the block is on the
grid.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.formats.packing import half_bytes, join_bits

BLOCK = 32
_SIGNIFICANT_BITS = {"BF16": 8, "F16": 11, "F32": 24}
_LARGEST_CODES = (-8, 7, 6, 5, 4, 3, 2, 1)  # codes are signed; only -8 has no other sign


def q4_0_on_grid(rows: FloatArray, dtype: str) -> tuple[ByteArray, NDArray[np.bool_]]:
    """rows: float32 (n, width), width a multiple of 32, which were stored as `dtype` ("BF16", "F16" or "F32").
    Returns uint8 (n · width / 32, 18): blocks of Q4_0; and for each whether it gives the very same weights in
    `dtype`."""
    x = np.ascontiguousarray(rows, np.float32).reshape(-1, BLOCK)
    scale = np.zeros((len(x), 1), np.float32)
    held: NDArray[np.bool_] = np.abs(x).max(axis=1) == 0  # nothing but zeros
    largest = np.take_along_axis(x, np.abs(x).argmax(axis=1)[:, None], axis=1)
    for code in _LARGEST_CODES:
        open_blocks = np.flatnonzero(~held)
        if not open_blocks.size:
            break
        found = _scales(x[open_blocks], largest[open_blocks] / np.float32(code), dtype)
        same = (_rounded(_codes(x[open_blocks], found) * found, dtype) == x[open_blocks]).all(axis=1)
        scale[open_blocks[same]] = found[same]
        held[open_blocks[same]] = True
    codes = (_codes(x, scale) + 8).astype(np.uint8)
    return np.hstack([half_bytes(scale[:, 0]), join_bits(codes, 4, 16)]), held


def _scales(x: FloatArray, guess: FloatArray, dtype: str) -> FloatArray:
    """Return float32 (n, 1): a scale in half precision between the bounds
    that all weights set, 0 where there is none."""
    codes = _codes(x, guess)
    fits = (codes != 0) & (codes >= -8) & (codes <= 7)
    size, of = np.abs(x).astype(np.float64), np.where(fits, np.abs(codes), 1)
    fraction, exponent = np.frexp(size)
    half_step = np.ldexp(1.0, exponent - _SIGNIFICANT_BITS[dtype] - 1)  # to the next number of `dtype`
    half_step_down = np.where(fraction == 0.5, half_step / 2, half_step)  # below a power of two they lie closer
    low = np.where(fits, (size - half_step_down) / of, -np.inf).max(axis=1, keepdims=True)
    high = np.where(fits, (size + half_step) / of, np.inf).min(axis=1, keepdims=True)
    middle = np.where(low <= high, (low + high) / 2, 0) * np.sign(guess)
    with np.errstate(over="ignore"):
        half: FloatArray = middle.astype(np.float16).astype(np.float32)
    return np.where(np.isfinite(half), half, np.float32(0))


def _codes(x: FloatArray, scale: FloatArray) -> FloatArray:
    codes: FloatArray = np.rint(x / np.where(scale == 0, np.float32(1), scale)) * (scale != 0)
    return np.clip(codes, -8, 7)


def _rounded(values: FloatArray, dtype: str) -> FloatArray:
    """Return the values as `dtype` has them, to the nearest, of two the even one."""
    if dtype == "F32":
        return values
    if dtype == "F16":
        return values.astype(np.float16).astype(np.float32)
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    wide: FloatArray = (rounded & np.uint32(0xFFFF0000)).view(np.float32)
    return wide
