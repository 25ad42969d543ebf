"""What the searches of Q4_K and Q5_K share."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import FloatArray
from thriftbit.formats.grid import Numbers

from . import llama_cpp
from .affine import search_super_affine
from .search import columns


def search(x: FloatArray, importance: FloatArray | None, top: int, plain: llama_cpp.Steps) -> Numbers:
    """top: the largest l. plain: the steps of llama.cpp's search without importance."""
    columns_x, w = columns(x, importance, 32)
    if importance is None:
        weights = llama_cpp.raised_sizes(columns_x)
        theirs = llama_cpp.super_affine_plain(columns_x, weights, top, sub_blocks=8, largest=63, steps=plain)
    else:
        square = llama_cpp.mean_square(x.reshape(-1, 256)) * np.float32(2)
        weights = llama_cpp.weights(columns_x, w, np.repeat(square, 8))
        theirs = llama_cpp.super_affine(columns_x, weights, top, sub_blocks=8, largest=63)
    return search_super_affine(columns_x, w, top, theirs, largest=63, spacing=1 / 64).numbers()
