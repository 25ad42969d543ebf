"""How the kernel of TQ2_0 searches."""

from __future__ import annotations

from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.formats.grid import Numbers
from thriftbit.formats.tq2_0 import pack

from .ternary import search_ternary


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    d, codes = search_ternary(x, importance)
    return pack(Numbers.of_blocks(codes, d))
