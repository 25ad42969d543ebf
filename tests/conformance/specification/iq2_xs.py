"""The encoder of IQ2_XS."""

from __future__ import annotations

import numpy as np

from thriftbit.formats import iq2_xs
from thriftbit.formats.codebooks import codebook
from thriftbit.formats.format import FloatArray

from .iq2 import STEPS, Search, search_from_highest
from .neighbours import Neighbours


def their_weights(x: FloatArray, importance: FloatArray | None, mean_square: FloatArray) -> FloatArray:
    """Without importance llama.cpp does not encode IQ2_XS; an importance of one is taken."""
    size = np.sqrt(mean_square + x * x)
    return size if importance is None else importance * size


_BOOK = codebook("iq2_xs")
_NEIGHBOURS = Neighbours(_BOOK, 2, STEPS, look_again_at_all=False)
_SUB_BLOCKS = search_from_highest(_NEIGHBOURS.search, 1e-15)

encode = Search(iq2_xs.GRID, _BOOK.levels, (0.6, 0.4), np.float32(1), their_weights, _SUB_BLOCKS).encode
