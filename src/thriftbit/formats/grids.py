"""The grids of the formats that are stored as codes and scales: bytes to numbers and back, next to one another."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from thriftbit.formats.format import ByteArray
from thriftbit.formats.grid import Grid, Numbers, ScaleKind
from thriftbit.formats.iq4_values import VALUES
from thriftbit.formats.packing import (
    half_bytes,
    half_values,
    join_bits,
    pack_scales_and_mins,
    split_bits,
    unpack_scales_and_mins,
)
from thriftbit.formats.search import FloatArray

TWO, FOUR = np.uint8(2), np.uint8(4)


def _whole(first: int, count: int) -> FloatArray:
    return np.arange(first, first + count, dtype=np.float32)


def _plain(codes: ByteArray, d: FloatArray, m: FloatArray | None = None) -> Numbers:
    """A block with one scale, and m added to it"""
    ones = np.ones_like(d)
    return Numbers(d, np.zeros_like(d) if m is None else -m, ones, ones, codes)


def _fifth_bits(packed: ByteArray) -> ByteArray:
    bits: ByteArray = np.unpackbits(packed, axis=1, bitorder="little")
    return bits


def _symmetric(bits: int, values: FloatArray) -> Grid:
    """Q4_0, Q5_0, IQ4_NL: a scale, then fifth bits where there are any, then nibbles"""

    def unpack(blocks: ByteArray) -> Numbers:
        codes = split_bits(blocks[:, -16:], 4, 16)
        return _plain(codes | _fifth_bits(blocks[:, 2:6]) << FOUR if bits == 5 else codes, half_values(blocks[:, :2]))

    def pack(numbers: Numbers) -> ByteArray:
        fifth = [np.packbits(numbers.codes >> 4, axis=1, bitorder="little")] if bits == 5 else []
        return np.hstack([half_bytes(numbers.d), *fifth, join_bits(numbers.codes & 15, 4, 16)])

    return Grid(ScaleKind.HALF, values, unpack, pack)


def _with_offset(bits: int) -> Grid:
    """Q4_1, Q5_1: a scale and an offset, then the same"""

    def unpack(blocks: ByteArray) -> Numbers:
        codes = split_bits(blocks[:, -16:], 4, 16)
        codes = codes | _fifth_bits(blocks[:, 4:8]) << FOUR if bits == 5 else codes
        return _plain(codes, half_values(blocks[:, :2]), half_values(blocks[:, 2:4]))

    def pack(numbers: Numbers) -> ByteArray:
        fifth = [np.packbits(numbers.codes >> 4, axis=1, bitorder="little")] if bits == 5 else []
        halves = half_bytes(numbers.d), half_bytes(-numbers.d_min)
        return np.hstack([*halves, *fifth, join_bits(numbers.codes & 15, 4, 16)])

    return Grid(ScaleKind.HALF_AND_HALF, _whole(0, 1 << bits), unpack, pack)


def _q8_0() -> Grid:
    def unpack(blocks: ByteArray) -> Numbers:
        codes = (np.maximum(blocks[:, 2:].view(np.int8), -127).astype(np.int16) + 127).astype(np.uint8)
        return _plain(codes, half_values(blocks[:, :2]))

    def pack(numbers: Numbers) -> ByteArray:
        levels = numbers.codes.astype(np.int16) - 127
        return np.hstack([half_bytes(numbers.d), levels.astype(np.int8).view(np.uint8)])

    return Grid(ScaleKind.HALF, _whole(-127, 255), unpack, pack)


def _k_with_mins(bits: int) -> Grid:
    """Q4_K, Q5_K"""

    def unpack(blocks: ByteArray) -> Numbers:
        scales, mins = (part.astype(np.float32) for part in unpack_scales_and_mins(blocks[:, 4:16]))
        codes = split_bits(blocks[:, -128:], 4, 32)
        codes = codes | split_bits(blocks[:, 16:48], 1, 32) << FOUR if bits == 5 else codes
        return Numbers(half_values(blocks[:, :2]), half_values(blocks[:, 2:4]), scales, mins, codes)

    def pack(numbers: Numbers) -> ByteArray:
        packed = pack_scales_and_mins(numbers.scales.astype(np.uint8), numbers.mins.astype(np.uint8))
        fifth = [join_bits(numbers.codes >> 4, 1, 32)] if bits == 5 else []
        halves = half_bytes(numbers.d), half_bytes(numbers.d_min)
        return np.hstack([*halves, packed, *fifth, join_bits(numbers.codes & 15, 4, 32)])

    return Grid(
        ScaleKind.TWO_MULTIPLES, _whole(0, 1 << bits), unpack, pack, sub_blocks=8, lowest=0, highest=63, highest_min=63
    )


def _q2_k() -> Grid:
    def unpack(blocks: ByteArray) -> Numbers:
        scales, mins = (blocks[:, :16] & 15).astype(np.float32), (blocks[:, :16] >> 4).astype(np.float32)
        codes = split_bits(blocks[:, 16:80], 2, 32)
        return Numbers(half_values(blocks[:, 80:82]), half_values(blocks[:, 82:84]), scales, mins, codes)

    def pack(numbers: Numbers) -> ByteArray:
        both = numbers.scales.astype(np.uint8) | numbers.mins.astype(np.uint8) << 4
        return np.hstack([both, join_bits(numbers.codes, 2, 32), half_bytes(numbers.d), half_bytes(numbers.d_min)])

    return Grid(
        ScaleKind.TWO_MULTIPLES, _whole(0, 4), unpack, pack, sub_blocks=16, lowest=0, highest=15, highest_min=15
    )


def _multiples(codes: ByteArray, d: FloatArray, scales: FloatArray) -> Numbers:
    return Numbers(d, np.zeros_like(d), scales, np.zeros_like(scales), codes)


def _q3_k() -> Grid:
    def unpack(blocks: ByteArray) -> Numbers:
        codes = split_bits(blocks[:, 32:96], 2, 32) | split_bits(blocks[:, :32], 1, 32) << TWO
        scales = split_bits(blocks[:, 96:104], 4, 8) | split_bits(blocks[:, 104:108], 2, 4) << FOUR
        return _multiples(codes, half_values(blocks[:, 108:110]), scales.astype(np.float32) - 32)

    def pack(numbers: Numbers) -> ByteArray:
        scales = (numbers.scales + 32).astype(np.uint8)
        high, low = join_bits(numbers.codes >> 2, 1, 32), join_bits(numbers.codes & 3, 2, 32)
        return np.hstack([high, low, join_bits(scales & 15, 4, 8), join_bits(scales >> 4, 2, 4), half_bytes(numbers.d)])

    return Grid(ScaleKind.MULTIPLE, _whole(-4, 8), unpack, pack, sub_blocks=16, lowest=-32, highest=31)


def _q6_k() -> Grid:
    def unpack(blocks: ByteArray) -> Numbers:
        codes = split_bits(blocks[:, :128], 4, 64) | split_bits(blocks[:, 128:192], 2, 32) << FOUR
        scales = blocks[:, 192:208].view(np.int8).astype(np.float32)
        return _multiples(codes, half_values(blocks[:, 208:210]), scales)

    def pack(numbers: Numbers) -> ByteArray:
        low, high = join_bits(numbers.codes & 15, 4, 64), join_bits(numbers.codes >> 4, 2, 32)
        return np.hstack([low, high, numbers.scales.astype(np.int8).view(np.uint8), half_bytes(numbers.d)])

    return Grid(ScaleKind.MULTIPLE, _whole(-32, 64), unpack, pack, sub_blocks=16, lowest=-128, highest=127)


def _iq4_xs() -> Grid:
    def unpack(blocks: ByteArray) -> Numbers:
        scales = split_bits(blocks[:, 2:4], 2, 1) << FOUR | split_bits(blocks[:, 4:8], 4, 1)
        codes = split_bits(blocks[:, 8:], 4, 16)
        return _multiples(codes, half_values(blocks[:, :2]), scales.astype(np.float32) - 32)

    def pack(numbers: Numbers) -> ByteArray:
        scales = (numbers.scales + 32).astype(np.uint8)
        high, low = join_bits(scales >> 4, 2, 1), join_bits(scales & 15, 4, 1)
        return np.hstack([half_bytes(numbers.d), high, low, join_bits(numbers.codes, 4, 16)])

    return Grid(ScaleKind.MULTIPLE, VALUES, unpack, pack, sub_blocks=8, lowest=-32, highest=31)


GRIDS: Mapping[str, Grid] = {
    name: make()
    for name, make in {
        "Q4_0": lambda: _symmetric(4, _whole(-8, 16)),
        "Q5_0": lambda: _symmetric(5, _whole(-16, 32)),
        "IQ4_NL": lambda: _symmetric(4, VALUES),
        "Q4_1": lambda: _with_offset(4),
        "Q5_1": lambda: _with_offset(5),
        "Q8_0": _q8_0,
        "Q2_K": _q2_k,
        "Q3_K": _q3_k,
        "Q4_K": lambda: _k_with_mins(4),
        "Q5_K": lambda: _k_with_mins(5),
        "Q6_K": _q6_k,
        "IQ4_XS": _iq4_xs,
    }.items()
}
"""By the format's name; formats that are not here have nothing to choose but single weights, or share their scale."""
