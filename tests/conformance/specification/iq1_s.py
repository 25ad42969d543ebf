"""IQ1_S: eight sub-blocks, each with a shift."""

from __future__ import annotations

from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.formats.iq1_s import pack

from .iq1 import search


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    return pack(search(x, importance, size=32, shift_blocks=1))
