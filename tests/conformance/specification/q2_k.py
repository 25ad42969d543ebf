"""How the kernel of Q2_K searches."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.formats.q2_k import pack

from . import llama_cpp
from .affine import search_super_affine
from .search import columns

PLAIN = llama_cpp.Steps(-0.5, 0.1, 15, absolute=True)
"""How llama.cpp searches without importance."""


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    columns_x, w = columns(x, importance, 16)
    if importance is None:
        weights = np.abs(columns_x)
        theirs = llama_cpp.super_affine_plain(columns_x, weights, 3, sub_blocks=16, largest=15, steps=PLAIN)
    else:
        weights = llama_cpp.weights(columns_x, w, np.repeat(llama_cpp.mean_square(x.reshape(-1, 256)), 16))
        theirs = llama_cpp.super_affine(columns_x, weights, 3, sub_blocks=16, largest=15)
    found = search_super_affine(columns_x, w, 3, theirs, largest=15, spacing=1 / 32)
    return pack(found.numbers())
