"""Q1_0: the encoder that loses least, without a search."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.formats.grid import Numbers
from thriftbit.formats.packing import half
from thriftbit.formats.q1_0 import pack

from .search import columns, total


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    columns_x, w = columns(x, importance, 128)
    d = half(total(w * np.abs(columns_x)) / total(w))
    return pack(Numbers.of_blocks((columns_x >= 0).T.astype(np.uint8), d))
