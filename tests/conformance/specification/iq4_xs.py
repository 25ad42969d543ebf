"""How the kernel of IQ4_XS searches."""

from __future__ import annotations

from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.formats.grid import Numbers
from thriftbit.formats.iq4_xs import pack

from . import llama_cpp
from .iq4_values import IQ4Values, levels_of, search_as_llama_cpp
from .search import columns
from .symmetric import search_super_symmetric


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    columns_x, w = columns(x, importance, 32)
    alone = search_as_llama_cpp(x, columns_x, w, importance, 256)
    theirs = llama_cpp.nearest_multiples(alone, sub_blocks=8, lowest=-32)
    found = search_super_symmetric(columns_x, w, IQ4Values(), theirs, lowest=-32, spacing=1 / 64)
    return pack(Numbers.of_multiples(levels_of(found.values.T).reshape(-1, 256), found.d, found.scales))
