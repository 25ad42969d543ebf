"""Q4_K: super-blocks of 256 weights in eight sub-blocks, x ≈ d·scale·l - d_min·min; l has 4 bits, scale and min 6."""

from __future__ import annotations

import gguf
import numpy as np

from thriftbit.formats import llama_cpp
from thriftbit.formats.affine import search_super_affine
from thriftbit.formats.format import ByteArray, FloatArray, Format
from thriftbit.formats.packing import (
    half_bytes,
    half_values,
    join_bits,
    pack_scales_and_mins,
    split_bits,
    unpack_scales_and_mins,
)
from thriftbit.formats.search import columns

PLAIN = llama_cpp.Steps(-1, 0.1, 20)
"""How llama.cpp searches without importance."""


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    columns_x, w = columns(x, importance, 32)
    if importance is None:
        weights = llama_cpp.raised_sizes(columns_x)
        theirs = llama_cpp.super_affine_plain(columns_x, weights, 15, sub_blocks=8, largest=63, steps=PLAIN)
    else:
        square = llama_cpp.mean_square(x.reshape(-1, 256)) * np.float32(2)
        weights = llama_cpp.weights(columns_x, w, np.repeat(square, 8))
        theirs = llama_cpp.super_affine(columns_x, weights, 15, sub_blocks=8, largest=63)
    found = search_super_affine(columns_x, w, 15, theirs, largest=63, spacing=1 / 64)
    scales, mins = (part.astype(np.uint8).reshape(-1, 8) for part in (found.scales, found.mins))
    levels = found.levels.T.astype(np.uint8).reshape(-1, 256)
    parts = half_bytes(found.d), half_bytes(found.d_min), pack_scales_and_mins(scales, mins), join_bits(levels, 4, 32)
    return np.hstack(parts)


def decode(blocks: ByteArray) -> FloatArray:
    d, d_min = half_values(blocks[:, :2]), half_values(blocks[:, 2:4])
    scales, mins = unpack_scales_and_mins(blocks[:, 4:16])
    levels = split_bits(blocks[:, 16:], 4, 32).reshape(-1, 8, 32)
    x = (d * scales)[:, :, None] * levels - (d_min * mins)[:, :, None]
    return x.reshape(-1, 256)


FORMAT = Format("Q4_K", gguf.GGMLQuantizationType.Q4_K, decode, encode, fallback="Q5_0", summary="small and good")
