"""What the searches of block formats share, as readable numpy: the specification of the kernels in `native/`.

A block stores its weights x as small whole numbers l and a scale: x ≈ s·l (symmetric) or x ≈ s·l - m (affine).
Choosing l for a given scale is rounding; choosing the scale is the search. Every search minimises the sum of w·(x
- x̂)², with w the importance of each weight. For fixed l the best scale is a least-squares fit, so a search tries
a grid of starting scales, rounds, fits, and keeps the start that leaves the least error.

Arrays are (elements of a block, blocks): one column is one block, so that a kernel can put sixteen columns into
one vector register and run the same statements. Sums run over the elements in order and nothing is fused, so that
a kernel gives the same bits. Everything is float32.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from thriftbit.formats.format import FloatArray

Scalar = TypeVar("Scalar", bound=np.generic)

POSITIONS = 16
"""How many places for a super-block's scale are rated."""

ZERO = np.float32(0)


def columns(x: FloatArray, importance: FloatArray | None, size: int) -> tuple[FloatArray, FloatArray]:
    """Return x and w as (size, n * block / size). w is 1 without importance, and in columns without any."""
    columns_x = np.ascontiguousarray(x.reshape(-1, size).T)
    if importance is None:
        return columns_x, np.ones_like(columns_x)
    w = np.ascontiguousarray(importance.reshape(-1, size).T)
    return columns_x, np.where(total(w) > 0, w, np.float32(1))


def total(values: FloatArray) -> FloatArray:
    """(elements, ...) -> (...): the sum over the first axis, added in order."""
    result: FloatArray = values[0].copy()
    for row in values[1:]:
        result += row
    return result


def per_super_block(values: FloatArray, sub_blocks: int) -> FloatArray:
    """(all sub-blocks,) -> (super-blocks,): the sum over the sub-blocks of each super-block, added in order."""
    return total(np.ascontiguousarray(values.reshape(-1, sub_blocks).T))


def shrinking(largest: int, spacing: float) -> FloatArray:
    """Return (POSITIONS,) factors. The largest scale times each factor is a candidate for d, if multiples go to
    `largest`."""
    return np.array([1 / (largest * (1 + spacing * (1 - k))) for k in range(POSITIONS)], np.float32)


def nearest(values: FloatArray, lowest: int, highest: int) -> FloatArray:
    """Return the nearest whole number from lowest to highest, ties to even."""
    rounded: FloatArray = np.rint(np.clip(values, np.float32(lowest), np.float32(highest)))
    return rounded


def error(x: FloatArray, w: FloatArray, approximation: FloatArray) -> FloatArray:
    """Return (blocks,): the sum of w·(x - approximation)²."""
    residual = x - approximation
    return total(w * residual * residual)


def signed_extreme(x: FloatArray) -> FloatArray:
    """Return (blocks,): the element of largest magnitude, with its sign. Of equal ones, the first."""
    extreme: FloatArray = np.take_along_axis(x, np.abs(x).argmax(axis=0)[None], axis=0)[0]
    return extreme
