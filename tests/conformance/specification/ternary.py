"""The search for the ternary formats, x ≈ d·t with t one of -1, 0, 1. They are made for models that were trained with
ternary weights, and store those weights exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.formats.plain import inverse

from .search import columns, nearest, signed_extreme
from .symmetric import search_block


class Ternary:
    @property
    def starts(self) -> Sequence[float]:
        return [1.5, 2, 2.5, 3]

    def nearest(self, y: FloatArray) -> FloatArray:
        return nearest(y, -1, 1)


def search_ternary(x: FloatArray, importance: FloatArray | None) -> tuple[FloatArray, ByteArray]:
    """(n, 256) -> d (n,) and t + 1 (n, 256)."""
    columns_x, w = columns(x, importance, 256)
    d = np.abs(search_block(columns_x, w, Ternary(), signed_extreme(columns_x)))
    return d, (Ternary().nearest(columns_x * inverse(d)) + 1).T.astype(np.uint8)
