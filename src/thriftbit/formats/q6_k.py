"""Q6_K: super-blocks of 256 weights in sixteen sub-blocks, x ≈ d·scale·(l - 32), l of 6 bits, scale a signed byte."""

from __future__ import annotations

import gguf
import numpy as np

from thriftbit.formats import llama_cpp
from thriftbit.formats.format import ByteArray, FloatArray, Format
from thriftbit.formats.packing import half_bytes, half_values, join_bits, split_bits
from thriftbit.formats.search import columns
from thriftbit.formats.symmetric import WholeNumbers, search_super_symmetric


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    x, w = columns(x, importance, 16)
    alone, _ = llama_cpp.search_symmetric(x, x * x if importance is None else w, llama_cpp.WholeNumberStarts(32))
    theirs = llama_cpp.nearest_multiples(alone, sub_blocks=16, lowest=-128)
    found = search_super_symmetric(x, w, WholeNumbers(32), theirs, lowest=-128, spacing=1 / 64)
    levels = (found.values.T + 32).astype(np.uint8).reshape(-1, 256)
    scales = found.scales.astype(np.int8).view(np.uint8).reshape(-1, 16)
    return np.hstack([join_bits(levels & 15, 4, 64), join_bits(levels >> 4, 2, 32), scales, half_bytes(found.d)])


def decode(blocks: ByteArray) -> FloatArray:
    levels = split_bits(blocks[:, :128], 4, 64) | split_bits(blocks[:, 128:192], 2, 32) << 4
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32)
    values = levels.astype(np.float32) - 32
    return ((half_values(blocks[:, 208:210]) * scales)[:, :, None] * values.reshape(-1, 16, 16)).reshape(-1, 256)


FORMAT = Format(
    "Q6_K",
    gguf.GGMLQuantizationType.Q6_K,
    decode,
    encode,
    fallback="Q8_0",
    summary="differences are hard to measure",
)
