"""The searches that block formats share, as readable numpy: the specification of the kernels in `native/search.hpp`.

A block stores its weights x as small whole numbers l and a scale: x ≈ s·l (symmetric) or x ≈ s·l - m (affine). Choosing l
for a given scale is rounding; choosing the scale is the search. Every search here minimises the sum of w·(x - x̂)², with w
the importance of each weight. For fixed l the best scale is a least-squares fit, so a search tries a row of starting scales,
rounds, and scores each by the error that is left after the fit.

Arrays are (elements of a block, blocks): one column is one block, so that a kernel can put sixteen columns into one vector
register and run the same statements. Sums run over the elements in order, and nothing is fused, so that a kernel gives the
same bits. Everything is float32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

LARGEST_HALF = np.float32(65504)


def total(values: FloatArray) -> FloatArray:
    """(elements, blocks) -> (blocks,): the sum over the elements, added in order"""
    result: FloatArray = values[0].copy()
    for row in values[1:]:
        result += row
    return result


def half(values: FloatArray) -> FloatArray:
    """Round to the nearest half-precision number."""
    return values.astype(np.float16).astype(np.float32)


def nearest(values: FloatArray, lowest: int, highest: int) -> FloatArray:
    """The nearest whole number from lowest to highest, ties to even."""
    return np.rint(np.clip(values, np.float32(lowest), np.float32(highest)))


def inverse(values: FloatArray) -> FloatArray:
    """1 / values, and 0 where that does not exist"""
    usable = np.abs(values) > np.float32(1e-30)
    return np.where(usable, np.float32(1) / np.where(usable, values, np.float32(1)), np.float32(0))


def error(x: FloatArray, w: FloatArray, approximation: FloatArray) -> FloatArray:
    """-> (blocks,): the sum of w·(x - approximation)²"""
    residual = x - approximation
    return total(w * residual * residual)
