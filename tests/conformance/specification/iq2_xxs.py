"""The encoder of IQ2_XXS. Its search in llama.cpp begins with a scale for whole numbers from 0 to 4."""

from __future__ import annotations

import numpy as np

from thriftbit.formats import iq2_xxs
from thriftbit.formats.codebooks import codebook
from thriftbit.formats.format import FloatArray

from .iq2 import Search
from .iq2_xs import their_weights
from .neighbours import Neighbours, TheirSubBlocks
from .search import nearest, total

MOST = 4
MANY = 4_000_000
"""Beyond this llama.cpp's rounding is not defined."""


def _as_byte(numbers: FloatArray) -> FloatArray:
    """llama.cpp keeps the numbers in bytes, so a negative one counts as 256 more where it is read again."""
    return numbers - np.float32(256) * np.floor(numbers * np.float32(1 / 256))


@np.errstate(all="ignore")
def _first_scale(x: FloatArray, w: FloatArray, highest: FloatArray) -> FloatArray:
    one = np.float32(1)
    best_factor = np.float32(MOST) / highest
    residual = x - one / best_factor * _as_byte(nearest(best_factor * x, -MANY, MANY))
    least = total(w * residual * residual)
    for k in (*range(-4, 0), *range(1, 5)):
        factor = (np.float32(0.1) * np.float32(k) + np.float32(MOST)) / highest
        residual = x - one / factor * nearest(factor * x, -MANY, MOST)
        left = total(w * residual * residual)
        better = left < least
        least, best_factor = np.where(better, left, least), np.where(better, factor, best_factor)
    numbers = nearest(best_factor * x, -MANY, MOST)
    sum_xl, sum_ll = total(w * x * numbers), total(w * numbers * numbers)
    numbers = _as_byte(numbers)
    for _ in range(5):
        for e in range(len(x)):
            wx = w[e] * x[e]
            rest_xl, rest_ll = sum_xl - wx * numbers[e], sum_ll - w[e] * numbers[e] * numbers[e]
            sensible = (rest_xl > 0) & (rest_ll > 0)
            moved = nearest(x[e] * rest_ll / np.where(sensible, rest_xl, one), -MANY, MOST)
            now_xl, now_ll = rest_xl + wx * moved, rest_ll + w[e] * moved * moved
            better = sensible & (moved != numbers[e]) & (now_xl * now_xl * sum_ll > sum_xl * sum_xl * now_ll)
            numbers[e] = np.where(better, _as_byte(moved), numbers[e])
            sum_xl, sum_ll = np.where(better, now_xl, sum_xl), np.where(better, now_ll, sum_ll)
    return np.where(sum_ll > 0, sum_xl / np.where(sum_ll > 0, sum_ll, one), np.float32(0))


def _sub_blocks(x: FloatArray, w: FloatArray) -> TheirSubBlocks:
    highest = x.max(axis=0)
    some = highest >= np.float32(1e-15)
    scale = _first_scale(x, w, np.where(some, highest, np.float32(1)))
    top = scale * np.float32(3)
    usable = some & (top > 0)
    return _NEIGHBOURS.search(x, w, np.where(usable, top, np.float32(1)), scale, usable)


_BOOK = codebook("iq2_xxs")
_STEPS = [np.float32(5) + np.float32(k) * np.float32(0.1) for k in range(-6, 7)]
_NEIGHBOURS = Neighbours(_BOOK, 2, _STEPS, look_again_at_all=True)

encode = Search(iq2_xxs.GRID, _BOOK.levels, (0.5,), np.float32(1), their_weights, _sub_blocks).encode
