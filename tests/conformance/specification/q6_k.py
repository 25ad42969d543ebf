"""How the kernel of Q6_K searches."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.formats.grid import Numbers
from thriftbit.formats.q6_k import pack

from . import llama_cpp
from .search import columns
from .symmetric import WholeNumbers, search_super_symmetric


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    x, w = columns(x, importance, 16)
    alone, _ = llama_cpp.search_symmetric(x, x * x if importance is None else w, llama_cpp.WholeNumberStarts(32))
    theirs = llama_cpp.nearest_multiples(alone, sub_blocks=16, lowest=-128)
    found = search_super_symmetric(x, w, WholeNumbers(32), theirs, lowest=-128, spacing=1 / 64)
    levels = (found.values.T + 32).astype(np.uint8).reshape(-1, 256)
    return pack(Numbers.of_multiples(levels, found.d, found.scales))
