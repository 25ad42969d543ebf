"""IQ1_M: sixteen sub-blocks, each with two shifts."""

from __future__ import annotations

from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.formats.iq1_m import pack

from .iq1 import search


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    return pack(search(x, importance, size=16, shift_blocks=2))
