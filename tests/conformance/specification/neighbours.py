"""llama.cpp's search for the scale and the codewords of a sub-block, in the IQ2 formats. `native/neighbours.hpp` is the
fast version.

llama.cpp tries a row of scales. At each it rounds every number to its own level. Where the levels of a group are no
codeword, it looks among the codewords nearest to them: those within the first few distances that occur. It keeps the
scale that explains most, and looks once more at that scale.

As in `search.py`, arrays are (elements of a sub-block, sub-blocks). Numbers are 1, 3, 5, … in llama.cpp's search, so
its scales are a whole number of times ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from thriftbit.formats.codebooks import Codebook
from thriftbit.formats.format import FloatArray

from .search import ZERO, nearest, total

Codes = NDArray[np.int64]
ONE = np.float32(1)


@dataclass
class TheirSubBlocks:
    """scale: (sub-blocks,), not negative. inverted: where all signs are inverted. codes: (groups, sub-blocks)."""

    scale: FloatArray
    inverted: NDArray[np.bool_]
    codes: Codes


@dataclass(frozen=True)
class Neighbours:
    """shells: how many distances count as near. steps: which number the highest weight is, one after the other.
    look_again_at_all: whether the second look is at all groups, or only at those whose levels were no codeword."""

    book: Codebook
    shells: int
    steps: Sequence[np.float32]
    look_again_at_all: bool
    _near: dict[int, Codes] = field(default_factory=dict)

    @cached_property
    def _code_of(self) -> dict[int, int]:
        return {int(pattern): code for code, pattern in enumerate(self._patterns(self.book.levels.T))}

    def _patterns(self, levels: NDArray[np.generic]) -> Codes:
        """(group, n) -> (n,): the levels as digits of one number"""
        result: Codes = (levels.astype(np.int64).T << 2 * np.arange(len(levels))).sum(axis=1)
        return result

    def _nearest_codewords(self, pattern: int) -> Codes:
        """Return codes: the nearest first, and of equally near ones the lowest code."""
        if pattern not in self._near:
            levels = pattern >> 2 * np.arange(self.book.levels.shape[1]) & 3
            distances = ((self.book.levels.astype(np.int64) - levels) ** 2).sum(axis=1)
            farthest = np.unique(distances)[: self.shells][-1]
            order = np.argsort(distances, kind="stable")
            self._near[pattern] = order[distances[order] <= farthest]
        return self._near[pattern]

    def _choose(self, x: FloatArray, root_w: FloatArray, s: FloatArray, factor: FloatArray) -> tuple[Codes, Codes]:
        """Return, for each group, the code of its rounded levels or of their best neighbour, and whether it is the
        former. x, root_w: (group, n). s, factor: (n,), the scale and its inverse."""
        top = len(self.book.values) - 1
        patterns = self._patterns(nearest(np.float32(0.5) * (factor * x - ONE), 0, top))
        codes = np.empty(len(patterns), np.int64)
        exact = np.array([int(pattern) in self._code_of for pattern in patterns])
        for pattern in np.unique(patterns):
            here = np.flatnonzero(patterns == pattern)
            if int(pattern) in self._code_of:
                codes[here] = self._code_of[int(pattern)]
                continue
            near = self._nearest_codewords(int(pattern))
            numbers = 2 * self.book.levels[near].astype(np.float32).T + ONE
            difference = s[here] * numbers[:, :, None] - x[:, here][:, None]
            cost = total(root_w[:, here][:, None] * difference * difference)
            codes[here] = near[cost.argmin(axis=0)]
        return codes, exact

    @np.errstate(all="ignore")
    def search(
        self, x: FloatArray, w: FloatArray, highest: FloatArray, first_scale: FloatArray, usable: NDArray[np.bool_]
    ) -> TheirSubBlocks:
        """Return llama.cpp's scales and codes.

        x: the weights without their signs, negative where the format's sign cannot be the weight's. w: llama.cpp's
        weights. highest: the highest of x, or what stands for it. first_scale: kept where no step explains anything.
        usable: the sub-blocks that llama.cpp does not take for zero.
        """
        size = self.book.levels.shape[1]
        groups, count = len(x) // size, x.shape[1]
        grouped, roots = x.reshape(groups, size, count), np.sqrt(w).reshape(groups, size, count)
        wx = w * x

        def choose(scale: FloatArray, factor: FloatArray) -> tuple[Codes, NDArray[np.bool_]]:
            each = [self._choose(grouped[g], roots[g], scale, factor) for g in range(groups)]
            return np.stack([codes for codes, _ in each]), np.stack([exact for _, exact in each])

        def sums(codes: Codes) -> tuple[FloatArray, FloatArray]:
            q = 2 * self.book.levels[codes].astype(np.float32).transpose(0, 2, 1).reshape(x.shape) + ONE
            return total(wx * q), total(w * q * q)

        scale, best = first_scale, np.zeros_like(first_scale)
        kept, exact = np.zeros((groups, count), np.int64), np.ones((groups, count), np.bool_)
        for step in self.steps:
            factor = step / highest
            codes, exact_now = choose(ONE / factor, factor)
            sum_qx, sum_qq = sums(codes)
            better = (sum_qq > 0) & (sum_qx * sum_qx > best * sum_qq)
            scale = np.where(better, sum_qx / sum_qq, scale)
            best = np.where(better, scale * sum_qx, best)
            kept, exact = np.where(better, codes, kept), np.where(better, exact_now, exact)

        again = usable & (scale > 0) & (self.look_again_at_all | ~exact.all(axis=0))
        codes, _ = choose(scale, ONE / scale)
        kept = np.where(again & (self.look_again_at_all | ~exact), codes, kept)
        sum_qx, sum_qq = sums(kept)
        scale = np.where(again & (sum_qq > 0), sum_qx / sum_qq, scale)
        scale = np.where(usable, scale, ZERO)
        return TheirSubBlocks(np.abs(scale), scale < 0, np.where(usable, kept, 0))
