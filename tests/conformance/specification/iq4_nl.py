"""How the kernel of IQ4_NL searches."""

from __future__ import annotations

from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.formats.grid import Numbers
from thriftbit.formats.plain import inverse
from thriftbit.formats.q4_0 import pack

from .iq4_values import IQ4Values, levels_of, search_as_llama_cpp
from .search import columns
from .symmetric import search_block


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    columns_x, w = columns(x, importance, 32)
    theirs = search_as_llama_cpp(x, columns_x, w, importance, 32)
    d = search_block(columns_x, w, IQ4Values(), theirs)
    levels = levels_of(IQ4Values().nearest(columns_x * inverse(d))).T
    return pack(Numbers.of_blocks(levels, d))
