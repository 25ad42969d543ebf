"""What Q4_K and Q5_K share: super-blocks of 256 weights in eight sub-blocks, x ≈ d·scale·l - d_min·min. scale and min
have 6 bits. The two differ in the number of bits of l, and in the starts of llama.cpp's search without importance."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import ByteArray
from thriftbit.formats.grid import Grid, Numbers, Pack, ScaleKind, Unpack, whole_numbers
from thriftbit.formats.packing import half_bytes, half_values, pack_scales_and_mins, unpack_scales_and_mins


def unpack_head(blocks: ByteArray, codes: ByteArray) -> Numbers:
    """blocks: each begins with d, d_min, scales and mins. codes: the numbers that follow."""
    scales, mins = (part.astype(np.float32) for part in unpack_scales_and_mins(blocks[:, 4:16]))
    return Numbers(half_values(blocks[:, :2]), half_values(blocks[:, 2:4]), scales, mins, codes)


def pack_head(numbers: Numbers) -> ByteArray:
    """Return the sixteen bytes that stand before the codes."""
    packed = pack_scales_and_mins(numbers.scales.astype(np.uint8), numbers.mins.astype(np.uint8))
    return np.hstack([half_bytes(numbers.d), half_bytes(numbers.d_min), packed])


def grid(top: int, unpack: Unpack, pack: Pack) -> Grid:
    return Grid(
        ScaleKind.TWO_MULTIPLES,
        whole_numbers(0, top + 1),
        unpack,
        pack,
        sub_blocks=8,
        lowest=0,
        highest=63,
        highest_min=63,
    )
