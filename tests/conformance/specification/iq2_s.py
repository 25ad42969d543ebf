"""The encoder of IQ2_S."""

from __future__ import annotations

import numpy as np

from thriftbit.formats import iq2_s
from thriftbit.formats.codebooks import codebook
from thriftbit.formats.format import FloatArray

from .iq2 import STEPS, Search, search_from_highest
from .neighbours import Neighbours


def their_weights(x: FloatArray, importance: FloatArray | None, mean_square: FloatArray) -> FloatArray:
    doubled = mean_square + mean_square
    if importance is None:
        return np.float32(0.25) * doubled + x * x
    return importance * np.sqrt(doubled + x * x)


_BOOK = codebook("iq2_s")
_NEIGHBOURS = Neighbours(_BOOK, 1, STEPS, look_again_at_all=False)
_SUB_BLOCKS = search_from_highest(_NEIGHBOURS.search, 1e-8)

encode = Search(iq2_s.GRID, _BOOK.levels, (0.6, 0.4), np.float32(0.9875), their_weights, _SUB_BLOCKS).encode
