"""How the kernel of Q3_K searches."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.formats.grid import Numbers
from thriftbit.formats.q3_k import pack

from . import llama_cpp
from .search import columns, total
from .symmetric import WholeNumbers, search_super_symmetric


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    columns_x, w = columns(x, importance, 16)
    if importance is None:
        theirs = llama_cpp.nearest_multiples(llama_cpp.descend_symmetric(columns_x, 4), sub_blocks=16, lowest=-32)
    else:
        square = llama_cpp.mean_square(x.reshape(-1, 256)) * np.float32(2)
        weights = llama_cpp.weights(columns_x, w, np.repeat(square, 16))
        alone, _ = llama_cpp.search_symmetric(columns_x, weights, llama_cpp.WholeNumberStarts(4))
        theirs = llama_cpp.searched_multiples(alone, total(weights), sub_blocks=16, n=32)
    found = search_super_symmetric(columns_x, w, WholeNumbers(4), theirs, lowest=-32, spacing=1 / 64)
    levels = (found.values.T + 4).astype(np.uint8).reshape(-1, 256)
    return pack(Numbers.of_multiples(levels, found.d, found.scales))
