"""IQ4_NL: blocks of 32 weights, x ≈ d·v, v one of sixteen uneven values; d in half precision."""

from __future__ import annotations

import gguf
import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray, Format
from thriftbit.formats.iq4_values import VALUES, IQ4Values, levels_of, search_as_llama_cpp
from thriftbit.formats.packing import half_bytes, half_values, join_bits, split_bits
from thriftbit.formats.search import columns, inverse
from thriftbit.formats.symmetric import search_block


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    columns_x, w = columns(x, importance, 32)
    theirs = search_as_llama_cpp(x, columns_x, w, importance, 32)
    d = search_block(columns_x, w, IQ4Values(), theirs)
    levels = levels_of(IQ4Values().nearest(columns_x * inverse(d))).T
    return np.hstack([half_bytes(d), join_bits(levels, 4, 16)])


def decode(blocks: ByteArray) -> FloatArray:
    return half_values(blocks[:, :2]) * VALUES[split_bits(blocks[:, 2:], 4, 16)]


FORMAT = Format("IQ4_NL", gguf.GGMLQuantizationType.IQ4_NL, decode, encode, summary="4 bits for any width")
