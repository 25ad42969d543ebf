"""IQ4_NL: blocks of 32 weights, x ≈ d·v, v one of sixteen uneven values; d in half precision. Laid out as Q4_0 is."""

from __future__ import annotations

from thriftbit.formats.format import LARGEST_HALF, ByteArray, FloatArray, Format
from thriftbit.formats.grid import Grid, Numbers, ScaleKind
from thriftbit.formats.iq4_values import VALUES, IQ4Values, levels_of, search_as_llama_cpp
from thriftbit.formats.q4_0 import pack, unpack
from thriftbit.formats.search import columns, inverse
from thriftbit.formats.symmetric import search_block


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    columns_x, w = columns(x, importance, 32)
    theirs = search_as_llama_cpp(x, columns_x, w, importance, 32)
    d = search_block(columns_x, w, IQ4Values(), theirs)
    levels = levels_of(IQ4Values().nearest(columns_x * inverse(d))).T
    return pack(Numbers.of_blocks(levels, d))


def decode(blocks: ByteArray) -> FloatArray:
    numbers = unpack(blocks)
    return numbers.d * VALUES[numbers.codes]


FORMAT = Format(
    "IQ4_NL",
    block_size=32,
    block_bytes=18,
    decode_blocks=decode,
    encode_blocks=encode,
    largest=113 * LARGEST_HALF,
    summary="4 bits for any width",
    grid=Grid(ScaleKind.HALF, VALUES, unpack, pack),
)
