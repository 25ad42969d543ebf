"""The search for affine blocks, x ≈ s·l - m with l from 0 to `top` (`native/affine.hpp` is its fast twin).

A block alone (Q4_1, Q5_1): a grid of places for the two ends of the range, each rounded, fitted by least squares,
rounded and fitted once more; the best fit wins.

Sub-blocks that share a super-block (Q2_K, Q4_K, Q5_K) store s and m as whole multiples of two half-precision
numbers, d and d_min. llama.cpp rounds each to the nearest multiple and stops there, which costs 0.2 to 0.6 dB.
Here d and d_min are chosen by what they make of all sub-blocks together:

1. every sub-block is searched alone, giving s, m and how its error grows when they move (a parabola, from the
   fit's sums);
2. 16 x 16 pairs (d, d_min) are rated with the parabolas; of every four neighbouring d, the best pair is a ticket;
3. for each ticket, every sub-block tries the nine multiples around its own, with the true error; d and d_min are
   fitted to the whole super-block by least squares; the nine are tried again. The best ticket is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thriftbit.formats.search import (
    POSITIONS,
    ZERO,
    FloatArray,
    Scalar,
    error,
    half,
    inverse,
    nearest,
    per_super_block,
    shrinking,
    total,
)

TICKETS = 4
"""How many pairs (d, d_min) are tried in earnest."""


def _evenly(first: float, last: float, count: int) -> list[float]:
    return [first + k * (last - first) / (count - 1) for k in range(count)]


# Where the grid puts an end of the range, in steps inward from the outermost weight.
SUB_BLOCK_ENDS = {3: _evenly(-0.6, 0.9, 6), 15: _evenly(-1.5, 1.5, 8), 31: _evenly(-2.0, 2.0, 8)}
"""For sub-blocks, by `top`."""

BLOCK_ENDS = {15: _evenly(-1.5, 1.5, 11), 31: _evenly(-2.0, 2.0, 11)}
"""For blocks that stand alone, by `top`."""

OUTER_ENDS = [0.0]
"""The outermost weights themselves: one start, for when there is no time for more."""


def search_affine(
    x: FloatArray, w: FloatArray, top: int, m_may_be_negative: bool, ends: Sequence[float], fits: int
) -> tuple[FloatArray, FloatArray]:
    """-> s and m, (blocks,) each: the best found for every block on its own, from every pair of `ends`, each rounded
    and fitted `fits` times"""
    sum_w = total(w)
    inverse_sum_w = inverse(sum_w)
    mean = total(w * x) * inverse_sum_w
    centred = x - mean

    def fit(levels: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """-> s, m and by how much they lower the error below that of the mean"""
        wl = w * levels
        sum_l, sum_ll, sum_xl = total(wl), total(wl * levels), total(wl * centred)
        mean_level = sum_l * inverse_sum_w
        s = sum_xl * inverse(sum_ll - sum_l * mean_level)
        m = s * mean_level - mean
        gain = s * sum_xl
        if not m_may_be_negative:
            through_zero = sum_xl + mean * sum_l
            s_through_zero = through_zero * inverse(sum_ll)
            outside = m < 0
            gain = np.where(outside, s_through_zero * through_zero - sum_w * mean * mean, gain)
            s = np.where(outside, s_through_zero, s)
            m = np.where(outside, ZERO, m)
        return s, m, gain

    lowest, highest = x.min(axis=0), x.max(axis=0)
    if not m_may_be_negative:
        lowest = np.minimum(lowest, ZERO)
    step = (highest - lowest) * np.float32(1 / top)
    inverse_step = inverse(step)
    best_s = np.zeros_like(mean)
    best_m = -mean if m_may_be_negative else np.maximum(-mean, ZERO)
    best_gain = np.full_like(mean, -np.inf)
    for low_end in ends:
        from_low = x - (lowest + np.float32(low_end) * step)
        for high_end in ends:
            levels = nearest(from_low * (inverse_step * np.float32(top / (top - low_end - high_end))), 0, top)
            s, m, gain = fit(levels)
            for _ in range(fits - 1):
                s, m, gain = fit(nearest((x + m) * inverse(s), 0, top))
            better = (gain > best_gain) & (s > 0)
            best_s, best_m = np.where(better, s, best_s), np.where(better, m, best_m)
            best_gain = np.where(better, gain, best_gain)
    return best_s, best_m


def fit_scale(x: FloatArray, w: FloatArray, top: int, s: FloatArray, m: FloatArray) -> FloatArray:
    """-> s in half precision, fitted to an m that is in half precision already"""
    raised = x + m
    levels = nearest(raised * inverse(s), 0, top)
    wl = w * levels
    return half(total(wl * raised) * inverse(total(wl * levels)))


def round_affine(x: FloatArray, w: FloatArray, top: int, s: FloatArray, m: FloatArray) -> tuple[FloatArray, FloatArray]:
    """-> s and m in half precision: m the nearest or one of its neighbours, s fitted to it"""

    def error_of(s: FloatArray, m: FloatArray) -> FloatArray:
        return error(x, w, s * nearest((x + m) * inverse(s), 0, top) - m)

    best_s, best_m = half(s), half(m)
    least = error_of(best_s, best_m)
    nearest_m = best_m
    for step in (-1, 0, 1):
        m_now = half(nearest_m * np.float32(1 + step / 2048))
        s_now = fit_scale(x, w, top, s, m_now)
        left = error_of(s_now, m_now)
        better = left < least
        least = np.where(better, left, least)
        best_s, best_m = np.where(better, s_now, best_s), np.where(better, m_now, best_m)
    return best_s, best_m


def search_block(x: FloatArray, w: FloatArray, top: int, hurried: bool) -> tuple[FloatArray, FloatArray]:
    """-> s and m in half precision for blocks that stand alone; hurried: without a search"""
    if hurried:
        s, m = search_affine(x, w, top, m_may_be_negative=True, ends=OUTER_ENDS, fits=1)
        return fit_scale(x, w, top, s, half(m)), half(m)
    return round_affine(x, w, top, *search_affine(x, w, top, m_may_be_negative=True, ends=BLOCK_ENDS[top], fits=2))


@dataclass
class SuperBlocks:
    """d, d_min: (super-blocks,). scales, mins: (sub-blocks of all,), whole numbers. levels: (elements, sub-blocks of
    all), whole numbers."""

    d: FloatArray
    d_min: FloatArray
    scales: FloatArray
    mins: FloatArray
    levels: FloatArray


def search_super_affine(
    x: FloatArray, w: FloatArray, top: int, sub_blocks: int, largest: int, spacing: float
) -> SuperBlocks:
    """-> the super-blocks with the least error found

    x, w: (elements of a sub-block, sub-blocks of all super-blocks). sub_blocks: how many make a super-block.
    largest: the largest multiple stored. spacing: relative distance between the d that are rated.
    """

    def spread(values: NDArray[Scalar]) -> NDArray[Scalar]:
        return np.repeat(values, sub_blocks)

    def gathered(values: FloatArray) -> FloatArray:
        return per_super_block(values, sub_blocks)

    def levels_of(s: FloatArray, m: FloatArray) -> FloatArray:
        return nearest((x + m) * inverse(s), 0, top)

    best_s, best_m = search_affine(x, w, top, m_may_be_negative=False, ends=SUB_BLOCK_ENDS[top], fits=2)
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
    rating = rating.reshape(TICKETS, -1, rating.shape[-1])
    winners = rating.argmin(axis=1)

    # 3. the true error
    best: SuperBlocks | None = None
    least = np.full(d.shape[1], np.inf, np.float32)
    for ticket, winner in enumerate(winners):
        d_now = np.take_along_axis(d, (winner // POSITIONS + ticket * (POSITIONS // TICKETS))[None], axis=0)[0]
        d_min_now = np.take_along_axis(d_min, (winner % POSITIONS)[None], axis=0)[0]
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
    """-> the best of the nine (scale, min) around the given ones for every sub-block, and its error"""
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
    """-> d and d_min that fit the super-block best by least squares, everything else fixed"""
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
    """-> the new super-blocks where they are better, the old ones elsewhere"""
    return SuperBlocks(
        np.where(better, new.d, old.d),
        np.where(better, new.d_min, old.d_min),
        np.where(better_sub, new.scales, old.scales),
        np.where(better_sub, new.mins, old.mins),
        np.where(better_sub, new.levels, old.levels),
    )
