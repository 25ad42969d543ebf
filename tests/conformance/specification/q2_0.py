"""Q2_0: the search for symmetric blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from thriftbit.formats.grid import Numbers
from thriftbit.formats.plain import inverse
from thriftbit.formats.q2_0 import pack

from .search import columns, nearest, signed_extreme
from .symmetric import search_block


class Values:
    @property
    def starts(self) -> Sequence[float]:
        return [1.8, 2.3, 2.8, 3.5, -1.1, -1.5, -2, -2.6]

    def nearest(self, y: NDArray[np.float32]) -> NDArray[np.float32]:
        return nearest(y, -1, 2)


def encode(x: NDArray[np.float32], importance: NDArray[np.float32] | None) -> NDArray[np.uint8]:
    columns_x, w = columns(x, importance, 64)
    d = search_block(columns_x, w, Values(), np.abs(signed_extreme(columns_x)))  # llama.cpp's d is the largest weight
    codes = (Values().nearest(columns_x * inverse(d)) + 1).T.astype(np.uint8)
    return pack(Numbers.of_blocks(codes, d))
