"""The search for affine blocks, x ≈ s·l - m with l from 0 to `top`. `native/affine.hpp` is the fast version.

A block that stands alone (Q4_1, Q5_1): the search tries a grid of places for the two ends of the range. For each, it
rounds the weights and fits s and m by least squares. The best of neighbouring tries is rounded and fitted once more,
and the best fit wins. The result of llama.cpp's own search (`llama_cpp.py`) is one more candidate.

Sub-blocks of a super-block (Q2_K, Q4_K, Q5_K) store s and m as whole multiples of two half-precision numbers, d and
d_min. llama.cpp rounds each to the nearest multiple and stops there, which costs 0.2 to 0.6 dB. Here d and d_min are
chosen by their effect on all sub-blocks together:

1. Each sub-block is searched alone. This gives s, m and how the error grows when they move: a parabola, computed from
   the sums of the fit.
2. 16 x 16 pairs (d, d_min) are rated with the parabolas. The best pair of every eight neighbouring d is a candidate,
   and llama.cpp's choice is one more.
3. For each candidate, every sub-block tries the nine multiples around its own, with the true error. Then d and d_min
   are fitted to the whole super-block by least squares, and the nine are tried again. The best candidate is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from thriftbit.formats.grid import Numbers
from thriftbit.formats.packing import half
from thriftbit.formats.plain import inverse

from . import llama_cpp
from .search import POSITIONS, ZERO, FloatArray, Scalar, error, nearest, per_super_block, shrinking, total

RATED_TICKETS = 2
"""How many pairs (d, d_min) are tried in earnest, beside llama.cpp's."""

Pair = tuple[FloatArray, FloatArray]
"""s and m"""


def _evenly(first: float, last: float, count: int) -> list[float]:
    return [first + k * (last - first) / (count - 1) for k in range(count)]


# Places for an end of the range, in steps inward from the outermost weight.
SUB_BLOCK_ENDS = {3: _evenly(-0.6, 0.9, 6), 15: _evenly(-1.5, 1.5, 8), 31: _evenly(-2.0, 2.0, 8)}
"""For sub-blocks, by `top`."""

BLOCK_ENDS = {15: _evenly(-1.5, 1.5, 10), 31: _evenly(-2.0, 2.0, 10)}
"""For blocks that stand alone, by `top`."""


@dataclass
class Fit:
    """s, m: (blocks,), the least-squares fit to given levels. gain: how much lower the error is than with the mean
    alone. sum_l, sum_ll: sums of w·l and w·l²."""

    s: FloatArray
    m: FloatArray
    gain: FloatArray
    sum_l: FloatArray
    sum_ll: FloatArray

    def or_better(self, other: Fit) -> Fit:
        better = (other.gain > self.gain) & (other.s > 0)
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Fit(*(np.where(better, theirs, mine) for mine, theirs in pairs))


class Fitter:
    """Fits s and m to levels by least squares."""

    def __init__(self, x: FloatArray, w: FloatArray, m_may_be_negative: bool) -> None:
        self.x, self.w, self.m_may_be_negative = x, w, m_may_be_negative
        self.sum_w = total(w)
        self.inverse_sum_w = inverse(self.sum_w)
        self.mean = total(w * x) * self.inverse_sum_w
        self.centred = x - self.mean

    def flat(self) -> Fit:
        """Return the fit that gives every weight the same value."""
        m, zero = ZERO - self.mean, np.zeros_like(self.mean)
        return Fit(zero, m if self.m_may_be_negative else np.maximum(m, ZERO), zero - np.float32(np.inf), zero, zero)

    def fit(self, levels: FloatArray) -> Fit:
        wl = self.w * levels
        sum_l, sum_ll, sum_xl = total(wl), total(wl * levels), total(wl * self.centred)
        mean_level = sum_l * self.inverse_sum_w
        s = sum_xl * inverse(sum_ll - sum_l * mean_level)
        m = s * mean_level - self.mean
        gain = s * sum_xl
        if not self.m_may_be_negative:
            through_zero = sum_xl + self.mean * sum_l
            s_through_zero = through_zero * inverse(sum_ll)
            outside = m < 0
            gain = np.where(outside, s_through_zero * through_zero - self.sum_w * self.mean * self.mean, gain)
            s = np.where(outside, s_through_zero, s)
            m = np.where(outside, ZERO, m)
        return Fit(s, m, gain, sum_l, sum_ll)

    def again(self, s: FloatArray, m: FloatArray, top: int) -> Fit:
        """Round the weights with the given s and m, and return a fit to the levels that result."""
        return self.fit(nearest((self.x + m) * inverse(s), 0, top))

    def excess(self, fit: Fit, s: FloatArray, m: FloatArray) -> FloatArray:
        """Return what other s and m than the fitted ones cost, for the same levels."""
        ds, mean_level = s - fit.s, fit.sum_l * self.inverse_sum_w
        shift = ds * mean_level - (m - fit.m)
        cost: FloatArray = self.sum_w * shift * shift + ds * ds * (fit.sum_ll - fit.sum_l * mean_level)
        return cost


def search_affine(
    x: FloatArray, w: FloatArray, top: int, m_may_be_negative: bool, ends: Sequence[float], theirs: Pair
) -> Pair:
    """Return s and m, (blocks,) each: the best fit for every block on its own.

    The starts are every pair of `ends`, and llama.cpp's s and m. The starts that share a lower end form two groups, by
    their upper end. The best start of each group is fitted a second time.
    """
    fitter = Fitter(x, w, m_may_be_negative)
    lowest, highest = x.min(axis=0), x.max(axis=0)
    if not m_may_be_negative:
        lowest = np.minimum(lowest, ZERO)
    step = (highest - lowest) * np.float32(1 / top)
    inverse_step = inverse(step)
    best = fitter.flat().or_better(fitter.again(*theirs, top))
    for low_end in ends:
        from_low = x - (lowest + np.float32(low_end) * step)
        for some in (ends[: len(ends) // 2], ends[len(ends) // 2 :]):
            first = fitter.flat()
            for high_end in some:
                levels = nearest(from_low * (inverse_step * np.float32(top / (top - low_end - high_end))), 0, top)
                first = first.or_better(fitter.fit(levels))
            best = best.or_better(fitter.again(first.s, first.m, top))
    return best.s, best.m


def search_block(x: FloatArray, columns_x: FloatArray, w: FloatArray, top: int, hurried: bool) -> Pair:
    """Return s and m in half precision for blocks that stand alone.

    x: (rows, width). columns_x, w: (32, blocks). hurried: there is no importance. llama.cpp does not search then, so a
    search here would make encoding slower than llama.cpp.
    """
    if hurried:
        return _hurried_block(columns_x, top)
    square = np.repeat(llama_cpp.mean_square(x), x.shape[1] // 32)
    weights = llama_cpp.weights(columns_x, w, square)
    theirs = llama_cpp.search_affine(columns_x, weights, top, llama_cpp.WITH_IMPORTANCE)
    return _searched_block(columns_x, w, top, theirs)


def _searched_block(x: FloatArray, w: FloatArray, top: int, theirs: Pair) -> Pair:
    """Return s and m in half precision for blocks that stand alone. Candidates are llama.cpp's s and m, and the
    search's: m rounded to half precision, or one of its two neighbours, with s fitted to it."""

    def error_of(s: FloatArray, m: FloatArray) -> FloatArray:
        return error(x, w, s * nearest((x + m) * inverse(s), 0, top) - m)

    s, m = search_affine(x, w, top, m_may_be_negative=True, ends=BLOCK_ENDS[top], theirs=theirs)
    best_s, best_m = half(theirs[0]), half(theirs[1])
    least = error_of(best_s, best_m)
    for step in (-1, 0, 1):
        m_now = half(half(m) * np.float32(1 + step / 2048))
        raised = x + m_now
        levels = nearest(raised * inverse(s), 0, top)
        wl = w * levels
        s_now = half(total(wl * raised) * inverse(total(wl * levels)))
        left = error_of(s_now, m_now)
        better = left < least
        least = np.where(better, left, least)
        best_s, best_m = np.where(better, s_now, best_s), np.where(better, m_now, best_m)
    return best_s, best_m


def _hurried_block(x: FloatArray, top: int) -> Pair:
    """Return s and m in half precision for blocks that stand alone, without importance.

    llama.cpp takes the outermost weights as the range and does not search, so there is time for two fits only. The
    second fit starts from the first and is no worse. Its result is used, unless llama.cpp's range, rounded to half
    precision, is closer to the first fit than the second fit, rounded, is to the second fit before rounding.
    """
    fitter = Fitter(x, np.ones_like(x), m_may_be_negative=True)
    lowest = x.min(axis=0)
    step = (x.max(axis=0) - lowest) / np.float32(top)
    first = fitter.fit(np.trunc((x - lowest) * inverse(step) + np.float32(0.5)))
    second = fitter.again(first.s, first.m, top)
    theirs_s, theirs_m, m = half(step), half(ZERO - lowest), half(second.m)
    s = half(second.s + (m - second.m) * second.sum_l * inverse(second.sum_ll))
    lucky = fitter.excess(first, theirs_s, theirs_m) < fitter.excess(second, s, m)
    return np.where(lucky, theirs_s, s), np.where(lucky, theirs_m, m)


@dataclass
class SuperBlocks:
    """d, d_min: (super-blocks,). scales, mins: (all sub-blocks,), whole numbers. levels: (elements, all sub-blocks),
    whole numbers."""

    d: FloatArray
    d_min: FloatArray
    scales: FloatArray
    mins: FloatArray
    levels: FloatArray

    def numbers(self) -> Numbers:
        """Return the same numbers, grouped by super-block."""
        d, d_min = self.d.reshape(-1, 1), self.d_min.reshape(-1, 1)
        scales, mins = self.scales.reshape(len(d), -1), self.mins.reshape(len(d), -1)
        return Numbers(d, d_min, scales, mins, self.levels.T.astype(np.uint8).reshape(len(d), -1))


def search_super_affine(
    x: FloatArray, w: FloatArray, top: int, theirs: llama_cpp.Affine, largest: int, spacing: float
) -> SuperBlocks:
    """Return the super-blocks with the least error found.

    x, w: (elements of a sub-block, sub-blocks of all super-blocks). theirs: llama.cpp's choice. largest: the largest
    multiple that can be stored. spacing: the relative distance between neighbouring candidates for d.
    """

    sub_blocks = len(theirs.scales) // len(theirs.d)

    def spread(values: NDArray[Scalar]) -> NDArray[Scalar]:
        return np.repeat(values, sub_blocks)

    def gathered(values: FloatArray) -> FloatArray:
        return per_super_block(values, sub_blocks)

    def levels_of(s: FloatArray, m: FloatArray) -> FloatArray:
        return nearest((x + m) * inverse(s), 0, top)

    alone = theirs.s, theirs.m
    best_s, best_m = search_affine(x, w, top, m_may_be_negative=False, ends=SUB_BLOCK_ENDS[top], theirs=alone)
    levels = levels_of(best_s, best_m)
    sum_w, sum_l, sum_ll = total(w), total(w * levels), total(w * levels * levels)
    slope = sum_l * inverse(sum_w)
    curvature = sum_ll - sum_l * slope

    # 2. rate (d, d_min) with the parabolas; arrays are (d's position, d_min's position, sub-blocks)
    shrink = shrinking(largest, spacing)
    d = half(best_s.reshape(-1, sub_blocks).max(axis=1) * shrink[:, None])
    d_min = half(best_m.reshape(-1, sub_blocks).max(axis=1) * shrink[:, None])
    d_spread, d_min_spread = np.repeat(d, sub_blocks, axis=1), np.repeat(d_min, sub_blocks, axis=1)
    shift = d_spread * nearest(best_s * inverse(d_spread), 0, largest) - best_s
    wanted_m = best_m + slope * shift
    miss = d_min_spread * nearest(wanted_m[:, None] * inverse(d_min_spread), 0, largest) - wanted_m[:, None]
    rating = (shift * shift * curvature)[:, None] + sum_w * miss * miss
    rating = total(np.moveaxis(rating.reshape(POSITIONS, POSITIONS, -1, sub_blocks), 3, 0))
    rating = rating.reshape(RATED_TICKETS, -1, rating.shape[-1])
    winners = rating.argmin(axis=1)

    # 3. the true error
    best: SuperBlocks | None = None
    least = np.full(d.shape[1], np.inf, np.float32)
    for ticket in range(RATED_TICKETS + 1):
        if ticket == RATED_TICKETS:
            d_now, d_min_now, scales, mins = theirs.d, theirs.d_min, theirs.scales, theirs.mins
        else:
            position = winners[ticket] // POSITIONS + ticket * (POSITIONS // RATED_TICKETS)
            d_now = np.take_along_axis(d, position[None], axis=0)[0]
            d_min_now = np.take_along_axis(d_min, (winners[ticket] % POSITIONS)[None], axis=0)[0]
            scales = nearest(best_s * inverse(spread(d_now)), 0, largest)
            wanted_m = best_m + slope * (spread(d_now) * scales - best_s)
            mins = nearest(wanted_m * inverse(spread(d_min_now)), 0, largest)
        for last in (False, True):
            scales, mins, left = _nine_around(x, w, spread(d_now), spread(d_min_now), scales, mins, top, largest)
            s, m = spread(d_now) * scales, spread(d_min_now) * mins
            left = gathered(left)
            better = left < least
            least = np.where(better, left, least)
            now = SuperBlocks(d_now, d_min_now, scales, mins, levels_of(s, m))
            best = now if best is None else _merge(best, now, better, spread(better))
            if not last:
                d_now, d_min_now = _refit(x, w, now, gathered)
    assert best is not None
    return best


def _nine_around(
    x: FloatArray, w: FloatArray, d: FloatArray, d_min: FloatArray,
    scales: FloatArray, mins: FloatArray, top: int, largest: int,
) -> tuple[FloatArray, FloatArray, FloatArray]:  # fmt: skip
    """Return, for every sub-block, the best of the nine pairs (scale, min) around the given one, and its error."""
    least = np.full_like(d, np.inf)
    best_scales, best_mins = scales, mins
    for scale_step in (-1, 0, 1):
        scale = np.clip(scales + np.float32(scale_step), ZERO, np.float32(largest))
        s = d * scale
        inverse_s = inverse(s)
        for min_step in (-1, 0, 1):
            offset = np.clip(mins + np.float32(min_step), ZERO, np.float32(largest))
            m = d_min * offset
            left = error(x, w, s * nearest((x + m) * inverse_s, 0, top) - m)
            better = left < least
            least = np.where(better, left, least)
            best_scales, best_mins = np.where(better, scale, best_scales), np.where(better, offset, best_mins)
    return best_scales, best_mins, least


def _refit(
    x: FloatArray, w: FloatArray, now: SuperBlocks, gathered: Callable[[FloatArray], FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Return d and d_min that fit the super-block best by least squares. Multiples and levels stay."""
    g, h = now.scales * now.levels, np.broadcast_to(now.mins, x.shape)
    gg, gh, hh = gathered(total(w * g * g)), gathered(total(w * g * h)), gathered(total(w * h * h))
    xg, xh = gathered(total(w * x * g)), gathered(total(w * x * h))
    determinant = gg * hh - gh * gh
    inverse_determinant = inverse(determinant)
    d = (xg * hh - xh * gh) * inverse_determinant
    d_min = (xg * gh - xh * gg) * inverse_determinant
    usable = (determinant > np.float32(1e-3) * (gg * hh)) & (d > 0) & (d_min > 0)
    d_alone = (xg + now.d_min * gh) * inverse(gg)
    d_alone = np.where(d_alone > 0, d_alone, now.d)
    return half(np.where(usable, d, d_alone)), np.where(usable, half(d_min), now.d_min)


def _merge(old: SuperBlocks, new: SuperBlocks, better: NDArray[np.bool_], better_sub: NDArray[np.bool_]) -> SuperBlocks:
    """Return the new super-blocks where they are better, and the old ones elsewhere."""
    return SuperBlocks(
        np.where(better, new.d, old.d),
        np.where(better, new.d_min, old.d_min),
        np.where(better_sub, new.scales, old.scales),
        np.where(better_sub, new.mins, old.mins),
        np.where(better_sub, new.levels, old.levels),
    )
