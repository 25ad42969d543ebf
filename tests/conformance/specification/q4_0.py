"""How the kernel of Q4_0 searches."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.formats.grid import Numbers
from thriftbit.formats.plain import inverse
from thriftbit.formats.q4_0 import pack

from .search import columns, nearest
from .symmetric import search_whole_numbers


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    columns_x, w = columns(x, importance, 32)
    d = search_whole_numbers(x, columns_x, w, 8, hurried=importance is None)
    levels = (nearest(columns_x * inverse(d), -8, 7) + 8).T.astype(np.uint8)
    return pack(Numbers.of_blocks(levels, d))
