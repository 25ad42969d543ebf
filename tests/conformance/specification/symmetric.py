"""The search for symmetric blocks, x ≈ s·v with v from a fixed set of values. `native/symmetric.hpp` is the fast
version.

The values are whole numbers from -n to n - 1, or the sixteen uneven ones of the IQ4 formats. There is one more value
below zero than above, so the sign of s matters: a grid of starts puts the weight of largest magnitude near either end.
Each start is rounded and fitted. The best of each group of neighbouring starts is rounded and fitted once more. The
result of llama.cpp's own search (`llama_cpp.py`) is one more start, and it is kept where nothing better is found.

Sub-blocks of a super-block (Q3_K, Q6_K, IQ4_XS) store s as a whole multiple of one half-precision d. As in `affine.py`,
d is chosen by its effect on all sub-blocks together, rated with parabolas. Then the scales next to the nearest are
tried with the true error, d is fitted to the super-block, and the scales are tried again. With one number to choose
instead of two, the parabolas are good enough: a second candidate for d brings hardly anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from thriftbit.formats.packing import half
from thriftbit.formats.plain import inverse

from . import llama_cpp
from .search import POSITIONS, FloatArray, Scalar, error, nearest, per_super_block, shrinking, signed_extreme, total

STARTS_IN_GROUP = 4
"""The best of this many neighbouring starts is fitted a second time."""


class Values(Protocol):
    """The values that a level can stand for."""

    @property
    def starts(self) -> Sequence[float]:
        """Return where the search puts the weight of largest magnitude at the start."""

    def nearest(self, y: FloatArray) -> FloatArray:
        """Return the value closest to each y."""


@dataclass(frozen=True)
class WholeNumbers:
    """Whole numbers from -n to n - 1."""

    n: int

    @property
    def starts(self) -> Sequence[float]:
        count, first, last = (8, 0.8, 1.6) if self.n == 4 else (10 if self.n == 32 else 12, 0.75, 1.3)
        places = [self.n * (first + k * (last - first) / (count - 1)) for k in range(count)]
        return [-place for place in places] + [place - 1 for place in places]

    def nearest(self, y: FloatArray) -> FloatArray:
        return nearest(y, -self.n, self.n - 1)


class HurriedNumbers(WholeNumbers):
    """Whole numbers from -n to n - 1, with a few starts only. Used where llama.cpp does not search, to be as fast as it
    is."""

    @property
    def starts(self) -> Sequence[float]:
        return [-self.n, -1.06 * self.n, self.n - 0.75, self.n]


def search_symmetric(x: FloatArray, w: FloatArray, values: Values, theirs: FloatArray) -> FloatArray:
    """Return s, (blocks,): the best found. theirs: llama.cpp's s, one more start."""
    inverse_extreme = inverse(signed_extreme(x))

    def best_fit(factors: Sequence[FloatArray]) -> FloatArray:
        """Return the fitted scale that lowers the error most, one scale being fitted for each factor."""
        best_s, best_gain = np.zeros_like(theirs), np.zeros_like(theirs)
        for factor in factors:
            v = values.nearest(x * factor)
            wv = w * v
            sum_xv = total(wv * x)
            s = sum_xv * inverse(total(wv * v))
            better = s * sum_xv > best_gain
            best_s, best_gain = np.where(better, s, best_s), np.where(better, s * sum_xv, best_gain)
        return best_s

    starts = [inverse_extreme * np.float32(start) for start in values.starts]
    groups = [starts[k : k + STARTS_IN_GROUP] for k in range(0, len(starts), STARTS_IN_GROUP)]
    return best_fit([inverse(s) for s in [*map(best_fit, groups), theirs]])


def search_block(x: FloatArray, w: FloatArray, values: Values, theirs: FloatArray) -> FloatArray:
    """Return s in half precision for blocks that stand alone: the search's result, or llama.cpp's if that is better."""

    def error_of(s: FloatArray) -> FloatArray:
        return error(x, w, s * values.nearest(x * inverse(s)))

    ours, theirs_half = half(search_symmetric(x, w, values, theirs)), half(theirs)
    return np.where(error_of(theirs_half) < error_of(ours), theirs_half, ours)


def search_whole_numbers(x: FloatArray, columns_x: FloatArray, w: FloatArray, n: int, hurried: bool) -> FloatArray:
    """Return s in half precision, for blocks of whole numbers that stand alone.

    x: (rows, width). columns_x, w: (32, blocks). hurried: there is no importance. llama.cpp does not search then, so a
    full search here would make encoding slower than llama.cpp.
    """
    if hurried:
        return search_block(columns_x, w, HurriedNumbers(n), signed_extreme(columns_x) * np.float32(-1 / n))
    square = np.repeat(llama_cpp.mean_square(x), x.shape[1] // 32)
    weights = llama_cpp.weights(columns_x, w, square)
    theirs, _ = llama_cpp.search_symmetric(columns_x, weights, llama_cpp.WholeNumberStarts(n))
    return search_block(columns_x, w, WholeNumbers(n), theirs)


@dataclass
class SuperBlocks:
    """d: (super-blocks,). scales: (all sub-blocks,), whole numbers. values: (elements, all sub-blocks)."""

    d: FloatArray
    scales: FloatArray
    values: FloatArray


def search_super_symmetric(
    x: FloatArray, w: FloatArray, values: Values, theirs: llama_cpp.Symmetric, lowest: int, spacing: float
) -> SuperBlocks:
    """Return the super-blocks with the least error found.

    x, w: (elements of a sub-block, sub-blocks of all super-blocks). theirs: llama.cpp's choice. lowest: the lowest
    multiple that can be stored; the highest is -lowest - 1. spacing: the relative distance between neighbouring
    candidates for d.
    """
    highest = -lowest - 1
    sub_blocks = len(theirs.scales) // len(theirs.d)

    def spread(values: NDArray[Scalar]) -> NDArray[Scalar]:
        return np.repeat(values, sub_blocks)

    best_s = search_symmetric(x, w, values, theirs.alone)
    v = values.nearest(x * inverse(best_s))
    curvature = total(w * v * v)

    extreme = signed_extreme(np.ascontiguousarray(best_s.reshape(-1, sub_blocks).T))
    shrink = shrinking(lowest, spacing)
    d = half(extreme * shrink[:, None])
    d_spread = np.repeat(d, sub_blocks, axis=1)
    shift = d_spread * nearest(best_s * inverse(d_spread), lowest, highest) - best_s
    rating = total(np.moveaxis((shift * shift * curvature).reshape(POSITIONS, -1, sub_blocks), 2, 0))
    d_now = np.take_along_axis(d, rating.argmin(axis=0)[None], axis=0)[0]

    # llama.cpp's choice, ours, and ours with d fitted to the whole super-block by least squares
    best_d, best_scales = theirs.d, theirs.scales
    s = spread(theirs.d) * theirs.scales
    least = per_super_block(error(x, w, s * values.nearest(x * inverse(s))), sub_blocks)
    scales = nearest(best_s * inverse(spread(d_now)), lowest, highest)
    for last in (False, True):
        scales, errors = _three_around(x, w, values, spread(d_now), scales, lowest)
        left = per_super_block(errors, sub_blocks)
        better = left < least
        least, best_d = np.where(better, left, least), np.where(better, d_now, best_d)
        best_scales = np.where(spread(better), scales, best_scales)
        if not last:
            g = scales * values.nearest(x * inverse(spread(d_now) * scales))
            wg = w * g
            sum_xg, sum_gg = (per_super_block(total(wg * other), sub_blocks) for other in (x, g))
            d_now = half(sum_xg * inverse(sum_gg))
    return SuperBlocks(best_d, best_scales, values.nearest(x * inverse(spread(best_d) * best_scales)))


def _three_around(
    x: FloatArray, w: FloatArray, values: Values, d: FloatArray, scales: FloatArray, lowest: int
) -> tuple[FloatArray, FloatArray]:
    """Return, for every sub-block, the best of the three scales around the given one, and its error."""
    least = np.full_like(d, np.inf)
    best_scales = scales
    for step in (-1, 0, 1):
        scale = np.clip(scales + np.float32(step), np.float32(lowest), np.float32(-lowest - 1))
        s = d * scale
        left = error(x, w, s * values.nearest(x * inverse(s)))
        better = left < least
        least, best_scales = np.where(better, left, least), np.where(better, scale, best_scales)
    return best_scales, least
