"""The search of IQ1_S and IQ1_M: the specification of native/iq1.hpp.

A weight is d·scale·(digit + shift): scale is an odd number up to 15 for a sub-block, the shift is ±1/8 for a shift
block, and the digits of eight weights, -1, 0 or 1, are a codeword. First every sub-block finds the scale that fits it
best alone, with any digits. d is the candidate that comes near most of these. Then three scales around the nearest,
both shifts and all codewords are compared by their true error. At last d is fitted to the super-block.

Arrays are (elements of a sub-block, sub-blocks), as in `search.py`. Shifts are places in (-1/8, 1/8).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thriftbit.formats.codebooks import codebook
from thriftbit.formats.format import FloatArray
from thriftbit.formats.iq1_s import EIGHTHS
from thriftbit.formats.packing import half
from thriftbit.formats.plain import inverse
from thriftbit.formats.vector_grid import VectorNumbers

from .search import ZERO, nearest, per_super_block, total

GROUP = 8
STARTS = (0.8, 1.0, 1.3, 1.7, 2.2, 3.0)
"""Where the search of a sub-block's scale begins, as multiples of the size of its weights."""

CLEARLY = np.float32(1.002)
"""A later start has to explain this much more. Otherwise small errors of the sums would decide between equals, such as
all digits one and all digits zero, which with the shift is a scale nine times as large."""

_SHARES = [0.8 + 0.04 * k for k in range(24)] + [2, 2.5, 3, 4, 5, 7.5, 10, 15]
CANDIDATES = np.array([share / 15 for share in _SHARES], np.float32)
"""Where d is looked for, as a share of the largest scale: finely where the largest scale is about 15 d, and at a few
larger ones for blocks so small that half precision has few numbers there."""

SCALES = 3
"""How many scales around the nearest are compared."""

DIGITS = codebook("iq1_s").levels
"""uint8 (2048, 8): 0 for -1, 1 for 0, 2 for 1."""

POWERS = 3 ** np.arange(GROUP)


@dataclass
class SubBlocks:
    """x, w: (elements, sub-blocks). counts: (sub-blocks,), 1 where they count for d, else 0. shift_blocks: in each."""

    x: FloatArray
    w: FloatArray
    counts: FloatArray
    shift_blocks: int

    @classmethod
    def of(cls, x: FloatArray, importance: FloatArray | None, size: int, shift_blocks: int) -> SubBlocks:
        """Sub-blocks without importance are fitted as if all their weights counted alike. They do not count for d,
        unless the whole super-block is so."""
        columns = np.ascontiguousarray(x.reshape(-1, size).T)
        if importance is None:
            return cls(columns, np.ones_like(columns), np.ones_like(columns[0]), shift_blocks)
        w = np.ascontiguousarray(importance.reshape(-1, size).T)
        some = total(w) > 0
        in_super_block = 256 // size
        some_in_super_block = np.repeat(some.reshape(-1, in_super_block).any(axis=1), in_super_block)
        counts = np.where(some | ~some_in_super_block, np.float32(1), ZERO)
        return cls(columns, np.where(some, w, np.float32(1)), counts, shift_blocks)

    @property
    def in_super_block(self) -> int:
        return 256 // len(self.x)

    def spread(self, d: FloatArray) -> FloatArray:
        return np.repeat(d, self.in_super_block)

    def by_shift_block(self, values: FloatArray) -> FloatArray:
        """(elements, n) -> (shift blocks, groups of a shift block, 8, n)"""
        return values.reshape(self.shift_blocks, -1, GROUP, values.shape[-1])


def search(x: FloatArray, importance: FloatArray | None, size: int, shift_blocks: int) -> VectorNumbers:
    """Return what IQ1 blocks hold. size: weights in a sub-block. shift_blocks: in a sub-block."""
    sub_blocks = SubBlocks.of(x, importance, size, shift_blocks)
    alone, curvature = scales_alone(sub_blocks)
    d = best_d(sub_blocks, alone * sub_blocks.counts, curvature * sub_blocks.counts)
    places, shifts, codes = best_codes(sub_blocks, d, alone)
    d = fitted_d(sub_blocks, places, shifts, codes)
    blocks = len(d)
    no_signs = np.zeros((blocks, 256), np.bool_)
    return VectorNumbers(
        d.reshape(-1, 1),
        places.astype(np.uint8).reshape(blocks, -1),
        np.ascontiguousarray(codes.reshape(-1, len(places)).T).astype(np.uint16).reshape(blocks, -1),
        no_signs,
        np.ascontiguousarray(shifts.T).astype(np.uint8).reshape(blocks, -1),
    )


def odd(places: FloatArray) -> FloatArray:
    return places + places + np.float32(1)


def nearest_place(s: FloatArray, d: FloatArray) -> FloatArray:
    """Return the place of the odd number nearest to s / d."""
    return nearest((s * inverse(d) - np.float32(1)) * np.float32(0.5), 0, 7)


def scales_alone(sub_blocks: SubBlocks) -> tuple[FloatArray, FloatArray]:
    """Return the scale that fits each sub-block best with digits rounded freely, and how fast the error grows around
    it."""
    x, w = sub_blocks.x, sub_blocks.w
    weight = total(w)
    size = np.sqrt(total(w * x * x) * inverse(weight))
    best, most = np.zeros_like(size), np.zeros_like(size)
    curvature = weight * EIGHTHS[1] ** 2  # for digits that are all zero
    for start in (*STARTS, None):  # at last from the best
        sum_qx, sum_qq = rounded_sums(sub_blocks, best if start is None else size * np.float32(start))
        s = np.maximum(sum_qx * inverse(sum_qq), ZERO)
        gain = s * sum_qx
        better = gain > most * (np.float32(1) if start is None else CLEARLY)
        best, curvature, most = (
            np.where(better, new, old) for new, old in ((s, best), (sum_qq, curvature), (gain, most))
        )
    return best, curvature


def rounded_sums(sub_blocks: SubBlocks, s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the sums of w·q·x and w·q², with q the rounded digits plus the better shift of each shift block."""
    y = sub_blocks.x * inverse(s)
    sums = []
    for shift in EIGHTHS:
        q = nearest(y - shift, -1, 1) + shift
        wq = sub_blocks.w * q
        sums.append([by_order(sub_blocks, wq * other) for other in (sub_blocks.x, q)])
    (qx_minus, qq_minus), (qx_plus, qq_plus) = sums
    plus = s * qq_plus - (qx_plus + qx_plus) < s * qq_minus - (qx_minus + qx_minus)
    return total(np.where(plus, qx_plus, qx_minus)), total(np.where(plus, qq_plus, qq_minus))


def by_order(sub_blocks: SubBlocks, values: FloatArray) -> FloatArray:
    """Return (shift blocks, n): the sums over the weights of each shift block, in order."""
    return np.stack([total(block) for block in values.reshape(sub_blocks.shift_blocks, -1, values.shape[-1])])


def best_d(sub_blocks: SubBlocks, alone: FloatArray, curvature: FloatArray) -> FloatArray:
    """Return (super-blocks,): the candidate whose multiples come nearest to the scales, rated with parabolas."""
    of_super_block = alone.reshape(-1, sub_blocks.in_super_block)
    d = half(of_super_block.max(axis=1) * CANDIDATES[:, None])
    d_spread = np.repeat(d, sub_blocks.in_super_block, axis=1)
    off = d_spread * odd(nearest_place(alone, d_spread)) - alone
    rating = np.stack([per_super_block(row, sub_blocks.in_super_block) for row in off * off * curvature])
    return np.take_along_axis(d, rating.argmin(axis=0)[None], axis=0)[0]


def best_codes(
    sub_blocks: SubBlocks, d: FloatArray, alone: FloatArray
) -> tuple[FloatArray, NDArray[np.intp], NDArray[np.intp]]:
    """Return places of scales (n,), shifts (shift blocks, n) and codes (shift blocks, groups of a shift block, n)."""
    d = sub_blocks.spread(d)
    first = np.clip(nearest_place(alone, d) - np.float32(1), ZERO, np.float32(8 - SCALES))
    least = np.full_like(alone, np.inf)
    for k in range(SCALES):
        place = first + np.float32(k)
        s = d * odd(place)
        (left_minus, codes_minus), (left_plus, codes_plus) = (with_codewords(sub_blocks, s, s * e) for e in EIGHTHS)
        plus = left_plus < left_minus
        left = total(np.where(plus, left_plus, left_minus))
        codes = np.where(plus[:, None], codes_plus, codes_minus)
        if k == 0:
            best_place, best_shifts, best = place, plus.astype(np.intp), codes
        better = left < least
        least, best_place = np.where(better, left, least), np.where(better, place, best_place)
        best_shifts, best = np.where(better, plus.astype(np.intp), best_shifts), np.where(better, codes, best)
    return best_place, best_shifts, best


def with_codewords(sub_blocks: SubBlocks, s: FloatArray, shift: FloatArray) -> tuple[FloatArray, NDArray[np.intp]]:
    """Return the errors that the best codewords leave, (shift blocks, n), and their codes."""
    y = sub_blocks.x - shift
    left = np.stack([sub_blocks.w * r * r for r in (y + s, y, y - s)])
    cheapest = left.min(axis=0)
    added, codes = nearest_codewords((left - cheapest).reshape(3, -1, GROUP, len(s)))
    of_groups = [total(np.moveaxis(sub_blocks.by_shift_block(cheapest), 2, 0))]
    of_groups.append(added.reshape(of_groups[0].shape))
    errors = [np.stack([total(block) for block in values]) for values in of_groups]
    return errors[0] + errors[1], codes.reshape(of_groups[0].shape)


def nearest_codewords(added: FloatArray) -> tuple[FloatArray, NDArray[np.intp]]:
    """added: (3, groups, 8, n), what each digit adds to the error. Return the least sums of codewords, and their codes,
    (groups, n) each. Sums are in the order of the digits.

    Of equal codewords, the one with the smallest moves away from the cheapest digits wins: a move is 0, 1 or 2 in a
    circle of three, and moves are digits of a number, the first the lowest.
    """
    groups, n = added.shape[1], added.shape[3]
    costs = np.ascontiguousarray(added.transpose(2, 0, 1, 3).reshape(GROUP, 3, groups * n))
    least, codes = np.empty(groups * n, np.float32), np.empty(groups * n, np.intp)
    for start in range(0, groups * n, 1024):
        of_all = _sums(costs[:, :, start : start + 1024])
        lowest = of_all.min(axis=0)
        chosen = of_all.argmin(axis=0)
        equal = of_all == lowest
        for tied in np.flatnonzero(equal.sum(axis=0) > 1):
            rivals = np.flatnonzero(equal[:, tied])
            moves = (DIGITS[rivals].astype(int) - costs[:, :, start + tied].argmin(axis=1)) % 3
            chosen[tied] = rivals[(moves * POWERS).sum(axis=1).argmin()]
        least[start : start + 1024], codes[start : start + 1024] = lowest, chosen
    return least.reshape(groups, n), codes.reshape(groups, n)


def _sums(costs: FloatArray) -> FloatArray:
    """(8, 3, n) -> (2048, n): the sums of all codewords. Codewords that begin alike share the sums of the beginning."""
    sums, numbers = costs[0], DIGITS[:, 0].astype(int)
    beginnings = np.unique(numbers)
    for e in range(1, GROUP):
        shorter, numbers = beginnings, numbers * 3 + DIGITS[:, e]
        beginnings = np.unique(numbers)
        sums = sums[np.searchsorted(shorter, beginnings // 3)] + costs[e][beginnings % 3]
    return sums[np.searchsorted(beginnings, numbers)]


def fitted_d(
    sub_blocks: SubBlocks, places: FloatArray, shifts: NDArray[np.intp], codes: NDArray[np.intp]
) -> FloatArray:
    """Return (super-blocks,): the least-squares fit of d, with everything else chosen."""
    digits = np.moveaxis(DIGITS[codes].astype(np.float32) - 1, 3, 2)  # (shift blocks, groups, 8, n)
    levels = (odd(places) * (digits + EIGHTHS[shifts][:, None, None])).reshape(sub_blocks.x.shape)
    wg = sub_blocks.w * levels
    sum_gx, sum_gg = (
        per_super_block(total(wg * other) * sub_blocks.counts, sub_blocks.in_super_block)
        for other in (sub_blocks.x, levels)
    )
    return half(np.maximum(sum_gx * inverse(sum_gg), ZERO))
