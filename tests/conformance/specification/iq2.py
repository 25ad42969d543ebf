"""The search of the IQ2 formats, x ≈ ± d·scale·codeword. `native/iq2.hpp` is the fast version.

For a given scale the best codeword of a group is found exactly: the costs of all codewords are compared. Where a format
stores an even number of minus signs in every group, and a group has an odd number, one weight has to take the wrong
sign. Which one is part of the choice of the codeword.

llama.cpp's own search (`neighbours.py`) comes first; its result is kept where nothing better is found. Its codewords
give each sub-block a scale by least squares, and so do those that are best at other scales, at which the largest weight
is more than the largest number; the one that explains most is taken. Candidates for d are rated with parabolas around
these scales. At the best d each sub-block tries three scales, with the best codewords of each. Then d is fitted to the
whole super-block by least squares, and the codewords are chosen once more.

Sub-blocks without any importance are fitted as if all their weights counted alike. They do not count for d, unless the
whole super-block is like that; llama.cpp's search is then given an importance of one.

Arrays are (elements of a sub-block, sub-blocks), as in `search.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thriftbit.formats.format import FloatArray
from thriftbit.formats.packing import half
from thriftbit.formats.plain import inverse
from thriftbit.formats.vector_grid import Signs, VectorGrid, VectorNumbers

from . import llama_cpp
from .neighbours import Codes, TheirSubBlocks
from .search import POSITIONS, ZERO, error, nearest, per_super_block, total

GROUP = 8
UNIT = np.float32(1 / 8)
SCALES = 16
HALVES = np.stack(np.meshgrid(*[np.arange(3)] * 4, indexing="ij")).reshape(4, -1)
"""(4, 81): all levels that half a codeword can have."""


@dataclass(frozen=True)
class Search:
    """grid: of the format. levels: of its codebook. starts: the scales that a sub-block begins with, as shares of the
    one that makes its largest weight the largest number. factor: of d, in llama.cpp's search. weights: (x, importance
    or None, mean square) -> the weights that it minimises with. sub_blocks: (x, these weights) -> its result."""

    grid: VectorGrid
    levels: NDArray[np.uint8]
    starts: Sequence[float]
    factor: np.float32
    weights: Callable[[FloatArray, FloatArray | None, FloatArray], FloatArray]
    sub_blocks: Callable[[FloatArray, FloatArray], TheirSubBlocks]

    def encode(self, x: FloatArray, importance: FloatArray | None) -> NDArray[np.uint8]:
        return self.grid.pack(_SuperBlocks(self, x, importance).found())


@dataclass
class Parts:
    """scale: the place of each, so that the multiple of d is UNIT · (2·scale + 1). codes: (groups, sub-blocks).
    flipped: bool (elements, sub-blocks), where the sign is not the weight's."""

    scale: FloatArray
    codes: Codes
    flipped: NDArray[np.bool_]

    def where(self, better: NDArray[np.bool_], other: Parts) -> Parts:
        """Return the other's parts in the sub-blocks that are better."""
        pairs = (self.scale, other.scale), (self.codes, other.codes), (self.flipped, other.flipped)
        scale, codes, flipped = (np.where(better, theirs, ours) for ours, theirs in pairs)
        return Parts(scale, codes, flipped)


class _SuperBlocks:
    def __init__(self, search: Search, x: FloatArray, importance: FloatArray | None) -> None:
        self.search, grid = search, search.grid
        elements = 256 // grid.sub_blocks
        self.x = np.ascontiguousarray(x.reshape(-1, elements).T)
        self.given = None if importance is None else np.ascontiguousarray(importance.reshape(-1, elements).T)
        given = np.ones_like(self.x) if self.given is None else self.given
        some = total(given) > 0
        self.w = np.where(some, given, np.float32(1))
        counts = self._spread(self._gathered(some.astype(np.float32)) > 0)
        self.share = (some | ~counts).astype(np.float32)
        if self.given is not None:
            self.given = np.where(counts, self.given, np.float32(1))
        self.mean_square = self._spread(llama_cpp.mean_square(x.reshape(-1, 256)))
        self.sizes = np.abs(self.x)
        negative = (self.x < 0).reshape(-1, GROUP, self.x.shape[1])
        self.odd = (negative.sum(axis=1) % 2 == 1) & (grid.signs == Signs.EVEN)
        odd_weights = np.repeat(self.odd, GROUP, axis=0)
        self.flip_cost = np.where(odd_weights, np.float32(4) * self.w * self.sizes, ZERO)
        order = np.lexsort(search.levels.T[::-1])
        self.order, self.first, self.second = order, *self._half_numbers(search.levels[order])

    @staticmethod
    def _half_numbers(levels: NDArray[np.uint8]) -> tuple[Codes, Codes]:
        """Return which half each codeword begins with, and which it ends with."""
        digits = 3 ** np.arange(3, -1, -1)
        return levels[:, :4] @ digits, levels[:, 4:] @ digits

    def _gathered(self, values: FloatArray) -> FloatArray:
        return per_super_block(values, self.search.grid.sub_blocks)

    def _spread(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        return np.repeat(values, self.search.grid.sub_blocks)

    def found(self) -> VectorNumbers:
        d, parts = self._theirs()
        least = self._error(d, parts)
        s, curvature = self._alone(parts)
        d_now = self._rated_d(s, curvature * self.share)
        for reach in (1, 0):
            now = self._best_scales(d_now, s, reach)
            left = self._error(d_now, now)
            better = left < least
            least, d = np.where(better, left, least), np.where(better, d_now, d)
            parts = parts.where(self._spread(better), now)
            sum_yv, sum_vv = self._sums(now)
            s = _fit(sum_yv, sum_vv, s)
            multiple = _scales(np.float32(1), now.scale)
            sum_yg = self._gathered(sum_yv * multiple * self.share)
            d_now = half(sum_yg * inverse(self._gathered(sum_vv * multiple * multiple * self.share)))
        return self._numbers(d, parts)

    def _alone(self, theirs: Parts) -> tuple[FloatArray, FloatArray]:
        """Return each sub-block's own scale, and the sum of w·v² of its codewords."""
        sum_yv, curvature = self._sums(theirs)
        s = _fit(sum_yv, curvature, ZERO)
        gain = s * sum_yv
        for share in self.search.starts:
            start = self.sizes.max(axis=0) * (np.float32(share) / np.float32(43))
            _, codes, flipped = self._choose(start, hurried=True)
            sum_yv, sum_vv = self._sums(Parts(start, codes, flipped))
            fitted = _fit(sum_yv, sum_vv, start)
            better = fitted * sum_yv > gain
            gain, s = np.where(better, fitted * sum_yv, gain), np.where(better, fitted, s)
            curvature = np.where(better, sum_vv, curvature)
        return s, curvature

    def _numbers(self, d: FloatArray, parts: Parts) -> VectorNumbers:
        minus = (self.x < 0) ^ parts.flipped
        return VectorNumbers(
            d.reshape(-1, 1),
            parts.scale.astype(np.uint8).reshape(len(d), -1),
            parts.codes.T.reshape(len(d), -1).astype(np.uint16),
            minus.T.reshape(len(d), -1),
            np.zeros((len(d), 0), np.uint8),
        )

    @np.errstate(all="ignore")
    def _theirs(self) -> tuple[FloatArray, Parts]:
        """Return llama.cpp's choice."""
        w = self.search.weights(self.x, self.given, self.mean_square)
        flipped = self._cheapest(w * self.x * self.x)
        alone = self.search.sub_blocks(np.where(flipped, -self.sizes, self.sizes), w)
        step = alone.scale.reshape(-1, self.search.grid.sub_blocks).max(axis=1) / np.float32(31)
        scale = nearest(np.float32(0.5) * (np.float32(1) / self._spread(step) * alone.scale - np.float32(1)), 0, 15)
        scale = np.where(self._spread(step) > 0, scale, ZERO)
        return half(step * self.search.factor), Parts(scale, alone.codes, flipped ^ alone.inverted)

    def _cheapest(self, cost: FloatArray) -> NDArray[np.bool_]:
        """Return (elements, sub-blocks): True for the weight of the least cost in every group that is odd."""
        place = cost.reshape(-1, GROUP, cost.shape[1]).argmin(axis=1)
        chosen = (np.arange(GROUP)[:, None] == place[:, None]) & self.odd[:, None]
        return chosen.reshape(cost.shape)

    def _codewords(self, codes: Codes) -> FloatArray:
        """(groups, sub-blocks) -> (elements, sub-blocks)"""
        return self.search.grid.vectors[codes].transpose(0, 2, 1).reshape(self.x.shape)

    def _signed(self, parts: Parts) -> FloatArray:
        return np.where(parts.flipped, -self.sizes, self.sizes)

    def _sums(self, parts: Parts) -> tuple[FloatArray, FloatArray]:
        v = self._codewords(parts.codes)
        wv = self.w * v
        return total(wv * self._signed(parts)), total(wv * v)

    def _error(self, d: FloatArray, parts: Parts) -> FloatArray:
        s = _scales(self._spread(d), parts.scale)
        return self._gathered(error(self._signed(parts), self.w, s * self._codewords(parts.codes)) * self.share)

    def _rated_d(self, alone: FloatArray, curvature: FloatArray) -> FloatArray:
        factors = np.array([1 / (0.125 * 31 * (0.88 + 0.016 * k)) for k in range(POSITIONS)], np.float32)
        d = half(alone.reshape(-1, self.search.grid.sub_blocks).max(axis=1) * factors[:, None])
        rating = []
        for candidate in d:
            spread = self._spread(candidate)
            shift = _scales(spread, _nearest_scale(alone, spread)) - alone
            rating.append(self._gathered(shift * shift * curvature))
        best: FloatArray = np.take_along_axis(d, np.argmin(rating, axis=0)[None], axis=0)[0]
        return best

    def _best_scales(self, d: FloatArray, s: FloatArray, reach: int) -> Parts:
        """Return, at the given d, the best of the scales around the nearest to s, and their best codewords."""
        spread, count = self._spread(d), self.x.shape[1]
        middle = _nearest_scale(s, spread)
        best = Parts(np.zeros_like(s), np.zeros((len(self.odd), count), np.int64), np.zeros(self.x.shape, np.bool_))
        least = np.full_like(s, np.inf)
        for step in range(-reach, reach + 1):
            scale = np.clip(middle + np.float32(step), ZERO, np.float32(SCALES - 1))
            cost, codes, flipped = self._choose(_scales(spread, scale))
            better = cost < least
            least, best = np.where(better, cost, least), best.where(better, Parts(scale, codes, flipped))
        return best

    def _choose(self, s: FloatArray, hurried: bool = False) -> tuple[FloatArray, Codes, NDArray[np.bool_]]:
        """Return the cost of the best codewords at scale s, the codewords, and which weights get the wrong sign.
        hurried: the codewords are chosen as if all signs were possible, and the wrong signs afterwards."""
        numbers = s * np.array([8, 25, 43], np.float32)[:, None]
        residual = self.sizes[:, None] - numbers
        cost_of_levels = self.w[:, None] * residual * residual
        flip_of_levels = np.zeros_like(residual) if hurried else self.flip_cost[:, None] * numbers
        cost, codes = np.zeros_like(s), []
        for first in range(0, len(self.x), GROUP):
            costs = [_sums_of_halves(cost_of_levels[first + start :][:4]) for start in (0, 4)]
            flips = [_least_of_halves(flip_of_levels[first + start :][:4]) for start in (0, 4)]
            pays_first = (costs[0] + flips[0])[self.first] + costs[1][self.second]
            pays_second = costs[0][self.first] + (costs[1] + flips[1])[self.second]
            of_codewords = np.minimum(pays_first, pays_second)
            cost = cost + of_codewords.min(axis=0)
            codes.append(self.order[of_codewords.argmin(axis=0)])
        chosen = np.stack(codes)
        return cost, chosen, self._cheapest(self.flip_cost * self._codewords(chosen))


def _sums_of_halves(costs: FloatArray) -> FloatArray:
    """(4, levels, sub-blocks), the costs of the levels of four numbers -> (81, sub-blocks)"""
    a, b, c, d = (costs[e][levels] for e, levels in enumerate(HALVES))
    return (a + b) + (c + d)


def _least_of_halves(costs: FloatArray) -> FloatArray:
    result: FloatArray = np.min([costs[e][levels] for e, levels in enumerate(HALVES)], axis=0)
    return result


def _scales(d: FloatArray | np.float32, scale: FloatArray) -> FloatArray:
    return d * ((scale + scale + np.float32(1)) * UNIT)


def _nearest_scale(s: FloatArray, d: FloatArray) -> FloatArray:
    return nearest(np.float32(0.5) * (s * inverse(d * UNIT)) - np.float32(0.5), 0, SCALES - 1)


def _fit(sum_yv: FloatArray, sum_vv: FloatArray, otherwise: FloatArray | np.float32) -> FloatArray:
    sensible = (sum_vv > 0) & (sum_yv > 0)
    return np.where(sensible, sum_yv / np.where(sensible, sum_vv, np.float32(1)), otherwise)


def search_from_highest(search: Callable[..., TheirSubBlocks], negligible: float) -> Callable[..., TheirSubBlocks]:
    """Return llama.cpp's search of IQ2_XS and IQ2_S, which begins with the highest weight. search: `Neighbours.search`.
    negligible: sub-blocks whose highest weight is lower are taken for zero."""

    def sub_blocks(x: FloatArray, w: FloatArray) -> TheirSubBlocks:
        highest = x.max(axis=0)
        usable = highest >= np.float32(negligible)
        highest = np.where(usable, highest, np.float32(1))
        return search(x, w, highest, highest / np.float32(5), usable)

    return sub_blocks


STEPS = [np.float32(5) + np.float32(k) * np.float32(0.1) for k in range(-9, 10)]
"""Which number the highest weight is, in llama.cpp's search of IQ2_XS and IQ2_S."""
