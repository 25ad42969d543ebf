"""The search for symmetric blocks, x ≈ s·v with v from a fixed set of values (`native/symmetric.hpp` is its fast twin).

The values are whole numbers from -n to n - 1, or the sixteen uneven ones of the IQ4 formats. Since there is one more
below zero than above, the sign of s matters: a grid of starts puts the weight of largest magnitude near either end.

Sub-blocks that share a super-block (Q3_K, Q6_K, IQ4_XS) store s as a whole multiple of one half-precision d. As in
`affine.py`, d is chosen by what it makes of all sub-blocks together, rated with parabolas; the scales next to the
nearest are tried with the true error, d is fitted to the super-block, and they are tried again. With one number to
choose instead of two, the parabolas pick well enough that a second candidate would find hardly more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from thriftbit.formats.search import (
    POSITIONS,
    FloatArray,
    Scalar,
    error,
    half,
    inverse,
    nearest,
    per_super_block,
    shrinking,
    signed_extreme,
    total,
)


class Values(Protocol):
    """The values that a level can stand for."""

    @property
    def starts(self) -> Sequence[float]:
        """Where the search puts the weight of largest magnitude to begin with."""

    def nearest(self, y: FloatArray) -> FloatArray:
        """-> the value closest to each y"""


@dataclass(frozen=True)
class WholeNumbers:
    """Whole numbers from -n to n - 1, in sub-blocks."""

    n: int

    @property
    def starts(self) -> Sequence[float]:
        count, first, last = (8, 0.8, 1.6) if self.n == 4 else (14, 0.75, 1.3)
        places = [self.n * (first + k * (last - first) / (count - 1)) for k in range(count)]
        return [-place for place in places] + [place - 1 for place in places]

    def nearest(self, y: FloatArray) -> FloatArray:
        return nearest(y, -self.n, self.n - 1)


class BlockNumbers(WholeNumbers):
    """The same in blocks that stand alone: the search begins wherever llama.cpp's does, and in more places."""

    @property
    def starts(self) -> Sequence[float]:
        n = self.n
        as_llama_cpp = [-(n + 0.1 * (k - 9)) for k in range(19)]
        beyond = [-n * place for place in (0.75, 0.8, 0.85, 1.15, 1.2, 1.3, 1.4)]
        other_end = [(n - 1) * (0.8 + k * 0.6 / 11) for k in range(12)]
        return as_llama_cpp + beyond + other_end


class HurriedNumbers(WholeNumbers):
    """The same when there is time for a few starts only."""

    @property
    def starts(self) -> Sequence[float]:
        return [-self.n, -1.06 * self.n, self.n - 0.75]


def search_symmetric(x: FloatArray, w: FloatArray, values: Values) -> FloatArray:
    """-> s, (blocks,): the best found."""
    inverse_extreme = inverse(signed_extreme(x))

    def fit(factor: FloatArray) -> tuple[FloatArray, FloatArray]:
        """-> s and by how much it lowers the error below that of zero"""
        v = values.nearest(x * factor)
        wv = w * v
        sum_xv = total(wv * x)
        s = sum_xv * inverse(total(wv * v))
        return s, s * sum_xv

    best_s = np.zeros_like(inverse_extreme)
    best_gain = np.zeros_like(inverse_extreme)
    for start in values.starts:
        s, _ = fit(inverse_extreme * np.float32(start))
        s, gain = fit(inverse(s))
        better = gain > best_gain
        best_s, best_gain = np.where(better, s, best_s), np.where(better, gain, best_gain)
    return best_s


@dataclass
class SuperBlocks:
    """d: (super-blocks,); scales: (sub-blocks of all,), whole numbers; values: (elements, sub-blocks of all)"""

    d: FloatArray
    scales: FloatArray
    values: FloatArray


def search_super_symmetric(
    x: FloatArray, w: FloatArray, values: Values, sub_blocks: int, lowest: int, spacing: float
) -> SuperBlocks:
    """-> the super-blocks with the least error found

    x, w: (elements of a sub-block, sub-blocks of all super-blocks). sub_blocks: how many make a super-block.
    lowest: the lowest multiple stored; the highest is -lowest - 1. spacing: relative distance between the d rated.
    """
    highest = -lowest - 1

    def spread(values: NDArray[Scalar]) -> NDArray[Scalar]:
        return np.repeat(values, sub_blocks)

    best_s = search_symmetric(x, w, values)
    v = values.nearest(x * inverse(best_s))
    curvature = total(w * v * v)

    extreme = signed_extreme(np.ascontiguousarray(best_s.reshape(-1, sub_blocks).T))
    shrink = shrinking(lowest, spacing)
    d = half(extreme * shrink[:, None])
    d_spread = np.repeat(d, sub_blocks, axis=1)
    shift = d_spread * nearest(best_s * inverse(d_spread), lowest, highest) - best_s
    rating = total(np.moveaxis((shift * shift * curvature).reshape(POSITIONS, -1, sub_blocks), 2, 0))
    d_now = np.take_along_axis(d, rating.argmin(axis=0)[None], axis=0)[0]

    scales = nearest(best_s * inverse(spread(d_now)), lowest, highest)
    scales, least = _three_around(x, w, values, spread(d_now), scales, lowest)
    g = scales * values.nearest(x * inverse(spread(d_now) * scales))
    wg = w * g
    sum_xg, sum_gg = (per_super_block(total(wg * other), sub_blocks) for other in (x, g))
    d_fitted = half(sum_xg * inverse(sum_gg))
    scales_fitted, left = _three_around(x, w, values, spread(d_fitted), scales, lowest)
    better = per_super_block(left, sub_blocks) < per_super_block(least, sub_blocks)
    d_now = np.where(better, d_fitted, d_now)
    scales = np.where(spread(better), scales_fitted, scales)
    return SuperBlocks(d_now, scales, values.nearest(x * inverse(spread(d_now) * scales)))


def _three_around(
    x: FloatArray, w: FloatArray, values: Values, d: FloatArray, scales: FloatArray, lowest: int
) -> tuple[FloatArray, FloatArray]:
    """-> the best of the three scales around the given ones for every sub-block, and its error"""
    least = np.full_like(d, np.inf)
    best_scales = scales
    for step in (-1, 0, 1):
        scale = np.clip(scales + np.float32(step), np.float32(lowest), np.float32(-lowest - 1))
        s = d * scale
        left = error(x, w, s * values.nearest(x * inverse(s)))
        better = left < least
        least, best_scales = np.where(better, left, least), np.where(better, scale, best_scales)
    return best_scales, least
