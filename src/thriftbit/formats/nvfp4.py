"""NVFP4: blocks of 64 weights in four sub-blocks, x ≈ s·v with s an FP8 number (E4M3) and v a 4-bit floating-point
number. Stored as GGML does: v doubled, so that it is whole, with half of s. NVIDIA's checkpoints have one more scale
for the whole tensor. In a GGUF that scale is a tensor of its own (`sources/tensor_scales.py`), outside the blocks."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.e2m1 import VALUES, codes_of, nibbles_of
from thriftbit.formats.format import ByteArray, FloatArray, Format
from thriftbit.formats.grid import Grid, Numbers, ScaleKind
from thriftbit.formats.packing import join_bits, split_bits

SCALES = np.array([np.ldexp(b & 7 | (b > 7) << 3, max(b >> 3, 1) - 11) for b in range(127)], np.float32)
"""float32 (127,): half of the E4M3 numbers from 0 to 448, in the order of their bytes."""

_BY_BYTE = np.concatenate([SCALES, [0], SCALES, [240]]).astype(np.float32)
"""float32 (256,): as GGML reads any byte. It ignores the highest bit. For bytes 127 and 255 E4M3 has no number; GGML
takes the former for zero only."""


def decode(blocks: ByteArray) -> FloatArray:
    return GRID.decode(unpack(blocks))


def unpack(blocks: ByteArray) -> Numbers:
    return Numbers.of_scales(codes_of(split_bits(blocks[:, 4:], 4, 8)), _BY_BYTE[blocks[:, :4]])


def pack(numbers: Numbers) -> ByteArray:
    scales = np.searchsorted(SCALES, numbers.scales).astype(np.uint8)
    return np.hstack([scales, join_bits(nibbles_of(numbers.codes), 4, 8)])


GRID = Grid(ScaleKind.TABLE, VALUES, unpack, pack, sub_blocks=4, scale_table=SCALES)


FORMAT = Format(
    "NVFP4",
    block_size=64,
    block_bytes=36,
    decode_blocks=decode,
    fallback="IQ4_NL",
    largest=448 * 6,
    summary="4 bits of NVIDIA's newest processors",
    grid=GRID,
)
