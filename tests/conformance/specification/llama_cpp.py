"""llama.cpp's own searches. Their result is one of our candidates, so that our blocks are never worse than llama.cpp's.
`native/llama_cpp.hpp` is the fast version.

The error of a block has many local minima. A search that is better on average still ends in a worse minimum now and
then. Only llama.cpp's own search can rule that out, and it has to follow llama.cpp's path to the last bit: two of its
candidates often differ by less than a rounding error. So sums, products and divisions are in the order of
`ggml-quants.c`, in float32. The weights are the ones that llama.cpp minimises with: importance times the root of (mean
square + x²), or powers of x without importance. This takes about a fifth of the encoding time.

Arrays are (elements of a block, blocks), as in `search.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from thriftbit.formats.packing import half
from thriftbit.formats.plain import inverse

from .search import ZERO, FloatArray, nearest, signed_extreme, total

NOTHING = np.float32(1e-15)
ONE = np.float32(1)
ROUNDS = 5
"""How often a level after the other is moved."""


def mean_square(x: FloatArray) -> FloatArray:
    """Return the mean squares, (n, elements) -> (n,), added in order."""
    columns = np.ascontiguousarray(x.T)
    return total(columns * columns) / np.float32(len(columns))


def weights(x: FloatArray, w: FloatArray, square: FloatArray) -> FloatArray:
    """Return importance w times the root of (square + x²)."""
    result: FloatArray = w * np.sqrt(square + x * x)
    return result


def raised_sizes(x: FloatArray) -> FloatArray:
    """Return |x| plus the root of the block's mean square: the weights of Q4_K and Q5_K without importance."""
    result: FloatArray = np.sqrt(total(x * x) / np.float32(len(x))) + np.abs(x)
    return result


def _divisor(usable: NDArray[np.bool_], values: FloatArray) -> FloatArray:
    """Return the values, with one in place of values that cannot be divided by."""
    divisor: FloatArray = np.where(usable, values, ONE)
    return divisor


class Starts(Protocol):
    """Where a search for symmetric blocks begins."""

    @property
    def value_first(self) -> bool:
        """The order of the product of weight, value and x: whether the value comes before x."""

    def factors(self, extreme: FloatArray) -> Iterable[FloatArray]:
        """Return the factors that turn weights into values, given the block's weight of largest magnitude."""

    def nearest(self, y: FloatArray) -> FloatArray:
        """Return the value closest to each y."""


@dataclass(frozen=True)
class WholeNumberStarts:
    """Whole numbers from -n to n - 1. The first start puts the extreme weight at -n; the others put it a little closer
    to zero or a little further away."""

    n: int
    value_first: bool = False

    def factors(self, extreme: FloatArray) -> Iterable[FloatArray]:
        for k in (0, *range(-9, 0), *range(1, 10)):
            yield -(np.float32(self.n) + np.float32(0.1) * np.float32(k)) / extreme

    def nearest(self, y: FloatArray) -> FloatArray:
        return nearest(y, -self.n, self.n - 1)


@np.errstate(all="ignore")
def search_symmetric(x: FloatArray, w: FloatArray, starts: Starts) -> tuple[FloatArray, FloatArray]:
    """Return s, and the factor whose rounded levels s was fitted to."""
    extreme = signed_extreme(x)
    usable = np.abs(extreme) >= NOTHING
    s, gain, best_factor = np.zeros_like(extreme), np.zeros_like(extreme), np.zeros_like(extreme)
    for factor in starts.factors(_divisor(usable, extreme)):
        v = starts.nearest(x * factor)
        sum_xv, sum_vv = total(w * v * x if starts.value_first else w * x * v), total(w * v * v)
        better = usable & (sum_vv > 0) & (sum_xv * sum_xv > gain * sum_vv)
        s = np.where(better, sum_xv / _divisor(better, sum_vv), s)
        gain = np.where(better, s * sum_xv, gain)
        best_factor = np.where(better, factor, best_factor)
    return s, best_factor


@np.errstate(all="ignore")
def descend_symmetric(x: FloatArray, n: int) -> FloatArray:
    """Return s for Q3_K without importance: one start, then each level in turn moves if that lowers the error."""
    extreme = signed_extreme(x)
    usable = np.abs(extreme) >= NOTHING
    levels = nearest(x * (np.float32(-n) / _divisor(usable, extreme)), -n, n - 1)
    w = x * x
    wx = w * x
    sum_xl, sum_ll = total(wx * levels), total(w * levels * levels)
    for _ in range(ROUNDS):
        for e in range(len(x)):
            rest_xl, rest_ll = sum_xl - wx[e] * levels[e], sum_ll - w[e] * levels[e] * levels[e]
            sensible = rest_xl > 0
            level = nearest(x[e] * rest_ll / _divisor(sensible, rest_xl), -n, n - 1)
            now_xl, now_ll = rest_xl + wx[e] * level, rest_ll + w[e] * level * level
            better = sensible & (level != levels[e]) & (now_ll > 0)
            better &= now_xl * now_xl * sum_ll > sum_xl * sum_xl * now_ll
            levels[e] = np.where(better, level, levels[e])
            sum_xl, sum_ll = np.where(better, now_xl, sum_xl), np.where(better, now_ll, sum_ll)
    fitted = usable & (sum_ll > 0)
    return np.where(fitted, sum_xl / _divisor(fitted, sum_ll), ZERO)


@dataclass
class Symmetric:
    """alone: (all sub-blocks,), the scales before they become multiples of d. d: (super-blocks,). scales: whole
    numbers."""

    alone: FloatArray
    d: FloatArray
    scales: FloatArray


def nearest_multiples(alone: FloatArray, sub_blocks: int, lowest: int) -> Symmetric:
    """Return the scales as the nearest multiples of d. The largest scale becomes `lowest`."""
    factor = np.float32(lowest) * inverse(signed_extreme(np.ascontiguousarray(alone.reshape(-1, sub_blocks).T)))
    scales = nearest(alone * np.repeat(factor, sub_blocks), lowest, -lowest - 1)
    return Symmetric(alone, half(inverse(factor)), scales)


def searched_multiples(alone: FloatArray, w: FloatArray, sub_blocks: int, n: int) -> Symmetric:
    """Return the scales as multiples of d, found by the search for blocks with scales in place of weights. alone, w:
    (all sub-blocks,)."""
    starts = WholeNumberStarts(n)
    values, shares = (np.ascontiguousarray(part.reshape(-1, sub_blocks).T) for part in (alone, w))
    d, factor = search_symmetric(values, shares, starts)
    return Symmetric(alone, half(d), starts.nearest(alone * np.repeat(factor, sub_blocks)))


@dataclass(frozen=True)
class Steps:
    """How a search for affine blocks widens the range. absolute: it minimises w·|error| instead of w·error²."""

    first: float
    step: float
    count: int
    absolute: bool = False


WITH_IMPORTANCE = Steps(-0.9, 0.05, 36)


@np.errstate(all="ignore")
def search_affine(x: FloatArray, w: FloatArray, top: int, steps: Steps) -> tuple[FloatArray, FloatArray]:
    """Return s and m. Every start begins at the lower end of the best fit so far."""
    lowest, highest = np.minimum(x.min(axis=0), ZERO), x.max(axis=0)
    usable = highest > lowest
    sum_w, sum_x = total(w), total(w * x)

    def levels_of(y: FloatArray) -> FloatArray:
        return np.rint(np.where(y > 0, np.minimum(y, np.float32(top)), ZERO))

    def error_of(s: FloatArray, lowest: FloatArray, levels: FloatArray) -> FloatArray:
        residual = s * levels + lowest - x
        return total(w * (np.abs(residual) if steps.absolute else residual * residual))

    factor = np.float32(top) / _divisor(usable, highest - lowest)
    s = ONE / factor
    least = error_of(s, lowest, levels_of(factor * (x - lowest)))
    for k in range(steps.count + 1):
        widened = np.float32(steps.first) + np.float32(steps.step) * np.float32(k) + np.float32(top)
        levels = levels_of(widened / (highest - lowest) * (x - lowest))
        wl = w * levels
        sum_l, sum_ll, sum_xl = total(wl), total(wl * levels), total(wl * x)
        determinant = sum_w * sum_ll - sum_l * sum_l
        sensible = determinant > 0
        divisor = _divisor(sensible, determinant)
        s_now: FloatArray = np.divide(sum_w * sum_xl - sum_x * sum_l, divisor)
        lowest_now: FloatArray = np.divide(sum_ll * sum_x - sum_l * sum_xl, divisor)
        outside = sensible & (lowest_now > 0)
        s_now = np.where(outside, sum_xl / _divisor(outside, sum_ll), s_now)
        lowest_now = np.where(outside, ZERO, lowest_now)
        left = error_of(s_now, lowest_now, levels)
        better = sensible & (left < least)
        least, s = np.where(better, left, least), np.where(better, s_now, s)
        lowest = np.where(better, lowest_now, lowest)
    return np.where(usable, s, ZERO), ZERO - lowest


@dataclass
class Affine:
    """s, m: (all sub-blocks,), before they become multiples of d and d_min. d, d_min: (super-blocks,). scales, mins:
    whole numbers."""

    s: FloatArray
    m: FloatArray
    d: FloatArray
    d_min: FloatArray
    scales: FloatArray
    mins: FloatArray


def super_affine_plain(x: FloatArray, w: FloatArray, top: int, sub_blocks: int, largest: int, steps: Steps) -> Affine:
    """Without importance: the nearest multiples. The largest becomes `largest`. w: llama.cpp's weights."""
    s, m = search_affine(x, w, top, steps)

    def multiples(alone: FloatArray) -> tuple[FloatArray, FloatArray]:
        most = alone.reshape(-1, sub_blocks).max(axis=1)
        some = most >= NOTHING
        factor = np.where(some, np.float32(largest) / _divisor(some, most), ZERO)
        d = half(np.where(some, most / np.float32(largest), ZERO))
        return d, nearest(alone * np.repeat(factor, sub_blocks), 0, largest)

    (d, scales), (d_min, mins) = multiples(s), multiples(m)
    return Affine(s, m, d, d_min, scales, mins)


def super_affine(x: FloatArray, w: FloatArray, top: int, sub_blocks: int, largest: int) -> Affine:
    """With importance. w: llama.cpp's weights."""
    s, m = search_affine(x, w, top, WITH_IMPORTANCE)
    shares = np.ascontiguousarray(total(w).reshape(-1, sub_blocks).T)

    def multiples(alone: FloatArray) -> tuple[FloatArray, FloatArray]:
        d, found = _fitted_multiples(np.ascontiguousarray(alone.reshape(-1, sub_blocks).T), shares, largest)
        return d, np.ascontiguousarray(found.T).reshape(-1)

    (d, scales), (d_min, mins) = multiples(s), multiples(m)
    return Affine(s, m, d, d_min, scales, mins)


@np.errstate(all="ignore")
def _fitted_multiples(values: FloatArray, w: FloatArray, largest: int) -> tuple[FloatArray, FloatArray]:
    """Return d and the multiples: the best of nine factors, then each multiple in turn moves if that lowers the error.
    values, w: (sub-blocks, super-blocks)."""
    most = values.max(axis=0)
    usable = most >= NOTHING
    divisor = _divisor(usable, most)
    best_factor, least = np.zeros_like(most), np.full_like(most, np.inf)
    for k in (0, *range(-4, 0), *range(1, 5)):
        factor = (np.float32(0.1) * np.float32(k) + np.float32(largest)) / divisor
        residual = values - ONE / factor * nearest(factor * values, 0, largest)
        left = total(w * residual * residual)
        better = left < least
        least, best_factor = np.where(better, left, least), np.where(better, factor, best_factor)
    found = nearest(best_factor * values, 0, largest)
    wx = w * values
    sum_xl, sum_ll = total(wx * found), total(w * found * found)
    for _ in range(ROUNDS):
        for j in range(len(values)):
            rest_xl, rest_ll = sum_xl - wx[j] * found[j], sum_ll - w[j] * found[j] * found[j]
            sensible = (rest_xl > 0) & (rest_ll > 0)
            moved = nearest(values[j] * rest_ll / _divisor(sensible, rest_xl), 0, largest)
            now_xl, now_ll = rest_xl + wx[j] * moved, rest_ll + w[j] * moved * moved
            better = sensible & (moved != found[j]) & (now_xl * now_xl * sum_ll > sum_xl * sum_xl * now_ll)
            found[j] = np.where(better, moved, found[j])
            sum_xl, sum_ll = np.where(better, now_xl, sum_xl), np.where(better, now_ll, sum_ll)
    fitted = usable & (sum_ll > 0)
    d = half(np.where(fitted, sum_xl / _divisor(fitted, sum_ll), ZERO))
    return d, np.where(usable, found, ZERO)
