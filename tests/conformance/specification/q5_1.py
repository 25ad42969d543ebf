"""How the kernel of Q5_1 searches."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.formats.grid import Numbers
from thriftbit.formats.plain import inverse
from thriftbit.formats.q5_1 import pack

from .affine import search_block
from .search import columns, nearest


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    columns_x, w = columns(x, importance, 32)
    d, m = search_block(x, columns_x, w, 31, hurried=importance is None)
    levels = nearest((columns_x + m) * inverse(d), 0, 31).T.astype(np.uint8)
    return pack(Numbers.of_blocks(levels, d, m))
