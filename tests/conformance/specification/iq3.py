"""The search of the IQ3 formats: x ≈ ± d·scale·codeword, with one d in half precision for 256 weights, an odd multiple
of `unit` for 32 weights, and a codeword for 4. `native/iq3.hpp` is the fast version.

For a given scale the best codewords can be found exactly: all are compared. So the search is for scales. The error of a
sub-block as a function of its scale has many local minima, and the best scale need not be near the one at which the
largest weight becomes the largest number. A coarse row of scales covers all that are possible. The best of them is
refined with two more scales and a parabola. The scales of the eight sub-blocks choose d, then each tries the multiples
of d around its own. The parabolas through the errors at three multiples give a better d, and all is tried once more.
Last come two multiples at another place where the coarse row was low.

Comparing scales needs no more than 16 bits, which are twice as fast: errors are counted in whole numbers. What a weight
costs is cut off at a quarter of what the sub-block has to lose. The codewords are chosen in full precision.

Where the number of minus signs has to be even and is odd, one weight takes the wrong sign. During the search that is
the weight that loses least if it becomes the smallest number. At the end it is chosen together with the codewords.

llama.cpp's search is not among the candidates: it takes longer than all of this. It minimises another error, and at any
scale it takes codewords that are near instead of best. So it is left far behind on average; `docs/lab-notes.md` says in
how many blocks it is not.

Sub-blocks without any importance are fitted as if all their weights counted alike, and do not count for d.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thriftbit.formats.format import FloatArray
from thriftbit.formats.packing import half
from thriftbit.formats.plain import inverse
from thriftbit.formats.vector_grid import VectorGrid, VectorNumbers

from .search import POSITIONS, nearest, per_super_block, total

ELEMENTS, GROUP, GROUPS, SUB_BLOCKS, HIGHEST = 32, 4, 8, 8, 15
STEP = np.float32(0.12)
COARSE = [np.float32(0.72) + STEP * np.float32(i) for i in range(7)]
"""The scales tried first, as shares of the one that makes the largest weight the largest number."""

DISTANCE = STEP / np.float32(2)
MOST_COST = np.float32(16383)
UNITS = np.float32(4) * MOST_COST
ONE, HALF = np.float32(1), np.float32(0.5)

Words = NDArray[np.int64]


@dataclass(frozen=True)
class Settings:
    """unit: a scale is unit·(2 k + 1)·d, with k from 0 to HIGHEST. even_signs: in eight weights, so many are minus."""

    grid: VectorGrid
    unit: float
    even_signs: bool


@dataclass
class Curve:
    """The errors at scales `middle` and at the scales below and above."""

    middle: FloatArray
    below: FloatArray
    at: FloatArray
    above: FloatArray


def search(x: FloatArray, importance: FloatArray | None, settings: Settings) -> VectorNumbers:
    return _Search(x, importance, settings).found()


def multiple(k: FloatArray) -> FloatArray:
    return k + k + ONE


def nearest_scale(s: FloatArray, inverse_step: FloatArray) -> FloatArray:
    return nearest((s * inverse_step - ONE) * HALF, 0, HIGHEST)


def possible(k: FloatArray) -> FloatArray:
    return np.clip(k, np.float32(0), np.float32(HIGHEST))


class _Search:
    """Arrays are (elements, sub-blocks) or (sub-blocks,), but d is (super-blocks,)."""

    def __init__(self, x: FloatArray, importance: FloatArray | None, settings: Settings) -> None:
        self.unit, self.even_signs = np.float32(settings.unit), settings.even_signs
        vectors = settings.grid.vectors
        self.values, levels = np.unique(vectors, return_inverse=True)
        levels = levels.reshape(vectors.shape)
        self.codes = np.lexsort(levels.T[::-1])
        self.levels: Words = levels[self.codes]
        self.x = np.ascontiguousarray(x.reshape(-1, ELEMENTS).T)
        self.size = np.abs(self.x)
        self._read_importance(importance)
        self.wanted = np.where(self._wrong(), -self.size, self.size)
        energy = total(self.w * self.x * self.x)
        self.fine_w = self.w * (inverse(energy) * UNITS)
        self.energy = energy * self.share
        self.unit_error = self.energy * (ONE / UNITS)

    def _read_importance(self, importance: FloatArray | None) -> None:
        self.w, self.share = np.ones_like(self.x), np.ones(self.x.shape[1], np.float32)
        if importance is not None:
            w = np.ascontiguousarray(importance.reshape(-1, ELEMENTS).T)
            some = total(w) > 0
            self.w = np.where(some, w, ONE)
            known = np.repeat(some.reshape(-1, SUB_BLOCKS).any(axis=1), SUB_BLOCKS)
            self.share = np.where(some | ~known, ONE, np.float32(0))

    def _wrong(self) -> NDArray[np.bool_]:
        """Return (elements, sub-blocks): which weights take the wrong sign."""
        self.odd = (self.x < 0).reshape(4, 8, -1).sum(axis=1) % 2 == 1
        smallest = self.size.max(axis=0) * (np.float32(4.4) / self.values[-1])
        wrong, right = self.size + smallest, np.minimum(np.abs(self.size - smallest), smallest)
        cheapest = (self.w * (wrong * wrong - right * right)).reshape(4, 8, -1).argmin(axis=1)
        chosen = (np.arange(8)[:, None] == cheapest[:, None]) & (self.odd & self.even_signs)[:, None]
        return chosen.reshape(self.x.shape)

    def found(self) -> VectorNumbers:
        largest = self.size.max(axis=0)
        alone, other = self._alone(largest)
        self.d = self._rated(alone)
        self.scales = nearest_scale(alone, inverse(self._step()))
        error = self._choose_scales()
        self._try_other(other, error)
        codes, minus = self._chosen()
        return VectorNumbers(
            self.d.reshape(-1, 1),
            self.scales.astype(np.uint8).reshape(-1, SUB_BLOCKS),
            codes.T.reshape(len(self.d), -1).astype(np.uint16),
            minus.T.reshape(len(self.d), -1),
            np.zeros((len(self.d), 0), np.uint8),
        )

    def _step(self) -> FloatArray:
        return np.repeat(self.d, SUB_BLOCKS) * self.unit

    def _error_at(self, s: FloatArray) -> FloatArray:
        """Return (sub-blocks,): the least error at scales s, in whole numbers."""
        residual = self.wanted - (s * self.values[:, None])[:, None]
        cost = np.rint(np.minimum(self.fine_w * residual * residual, MOST_COST)).astype(np.int32)
        least = np.full((GROUPS, len(s)), np.iinfo(np.int32).max, np.int32)
        by_place = [cost[:, place::GROUP] for place in range(GROUP)]
        last = by_place[2][:, None] + by_place[3][None]
        for a in range(len(self.values)):
            for b in range(len(self.values)):
                row = self.levels[(self.levels[:, 0] == a) & (self.levels[:, 1] == b)]
                if len(row):
                    best = by_place[0][a] + by_place[1][b] + last[row[:, 2], row[:, 3]].min(axis=0)
                    least = np.minimum(least, best)
        return least.sum(axis=0).astype(np.float32)

    def _alone(self, largest: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the scale that each sub-block would have alone; the best in the coarse row that is no neighbour of the
        best there."""
        top = largest * (ONE / self.values[-1])
        errors = [self._error_at(top * place) for place in COARSE]
        at, best = np.full_like(top, np.inf), np.zeros_like(top)
        for place, error in zip(COARSE, errors, strict=True):
            best, at = np.where(error < at, place, best), np.minimum(error, at)
        least_other, other = np.full_like(top, np.inf), best
        for place, error in zip(COARSE, errors, strict=True):
            better = (error < least_other) & (np.abs(place - best) > np.float32(1.5) * STEP)
            least_other, other = np.where(better, error, least_other), np.where(better, place, other)
        below, above = self._error_at(top * (best - DISTANCE)), self._error_at(top * (best + DISTANCE))
        bend = (below - at) + (above - at)
        shift = np.clip(HALF * (below - above) * inverse(bend), -ONE, ONE)
        lower = np.where(above < below, ONE, -ONE)
        return top * (best + DISTANCE * np.where(bend > 0, shift, lower)), top * other

    def _rated(self, alone: FloatArray) -> FloatArray:
        """Return d, (super-blocks,): the candidate that moves the scales least, by what sub-blocks have to lose."""
        span = np.float32(2 * HIGHEST + 1) * self.unit
        shrink = [ONE / (span * (ONE + np.float32(i - 6) / np.float32(64))) for i in range(POSITIONS)]
        candidates = half(alone.reshape(-1, SUB_BLOCKS).max(axis=1) * np.array(shrink, np.float32)[:, None])
        ratings = []
        for d in candidates:
            step = np.repeat(d * self.unit, SUB_BLOCKS)
            shift = step * multiple(nearest_scale(alone, inverse(step))) * inverse(alone) - ONE
            ratings.append(per_super_block(shift * shift * self.energy, SUB_BLOCKS))
        best: FloatArray = np.take_along_axis(candidates, np.argmin(ratings, axis=0)[None], axis=0)[0]
        return best

    def _choose_scales(self) -> FloatArray:
        """Return the errors, (sub-blocks,)."""
        first = self._curve()
        first_error, d, scales = self._moved(first), self.d, self.scales
        self._refit(first)
        error = self._moved(self._curve())
        better = self._in_super_blocks(error) < self._in_super_blocks(first_error)
        self.d, refitted = np.where(better, self.d, d), np.repeat(better, SUB_BLOCKS)
        self.scales = np.where(refitted, self.scales, scales)
        return np.where(refitted, error, first_error)

    def _try_other(self, other: FloatArray, error: FloatArray) -> None:
        k = nearest_scale(other, inverse(self._step()))
        for tried in (k, possible(k + ONE)):
            other_error = self._error_at(self._step() * multiple(tried))
            self.scales = np.where(other_error < error, tried, self.scales)
            error = np.minimum(other_error, error)

    def _in_super_blocks(self, error: FloatArray) -> FloatArray:
        return per_super_block(error * self.unit_error, SUB_BLOCKS)

    def _curve(self) -> Curve:
        step, middle = self._step(), self.scales
        tried = (possible(middle - ONE), middle, possible(middle + ONE))
        return Curve(middle, *(self._error_at(step * multiple(k)) for k in tried))

    def _moved(self, curve: Curve) -> FloatArray:
        """Move each scale to the best of the curve. Returns (sub-blocks,): the errors."""
        lower = np.minimum(curve.below, curve.at)
        shift = np.where(curve.above < lower, ONE, np.where(curve.below < curve.at, -ONE, np.float32(0)))
        self.scales = possible(curve.middle + shift)
        return np.minimum(curve.above, lower)

    def _refit(self, curve: Curve) -> None:
        """Move d to the least of the parabolas through the curve's errors, for the present scales."""
        slope = (curve.above - curve.below) * HALF * self.unit_error
        bend = np.maximum((curve.above - curve.at) + (curve.below - curve.at), np.float32(0)) * HALF * self.unit_error
        own, middle = multiple(self.scales) * HALF, multiple(curve.middle) * HALF
        linear = per_super_block(own * (bend * middle * np.float32(2) - slope), SUB_BLOCKS)
        square = per_super_block(bend * own * own, SUB_BLOCKS)
        self.d = half(self.d * np.clip(linear * HALF * inverse(square), np.float32(0.95), np.float32(1.05)))

    def _chosen(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the codes (groups, sub-blocks), and which weights are minus (elements, sub-blocks)."""
        s = self._step() * multiple(self.scales)
        numbers = (s * self.values[:, None])[:, None]
        residual = self.size - numbers
        first, last = self._halves(self.w * residual * residual, np.add)
        cost = first + last
        own = cost.argmin(axis=0)
        minus = self.x < 0
        if not self.even_signs:
            return self.codes[own], minus
        flip_first, flip_last = self._halves(self.w * self.size * numbers * np.float32(4), np.minimum)
        cost_paying = np.minimum((first + flip_first) + last, first + (last + flip_last))
        paying = cost_paying.argmin(axis=0)
        least, least_paying = cost.min(axis=0), cost_paying.min(axis=0)
        second_pays = least[0::2] + least_paying[1::2] < least_paying[0::2] + least[1::2]
        pays = np.stack([self.odd & ~second_pays, self.odd & second_pays], axis=1).reshape(own.shape)
        words = np.where(pays, paying, own)
        values = np.moveaxis(self.values[self.levels[words]], 2, 1)
        flip = (self.w * self.size).reshape(values.shape) * values
        cheapest = np.arange(GROUP)[:, None] == flip.argmin(axis=1)[:, None]
        return self.codes[words], minus ^ (cheapest & pays[:, None]).reshape(minus.shape)

    def _halves(self, of_levels: FloatArray, join: np.ufunc) -> tuple[FloatArray, FloatArray]:
        """of_levels: (levels, elements, sub-blocks) -> of each codeword's halves, (codewords, groups, sub-blocks)"""
        parts = [of_levels[:, place::GROUP][self.levels[:, place]] for place in range(GROUP)]
        return join(parts[0], parts[1]), join(parts[2], parts[3])
