"""Small numbers into bytes and back: the parts of block layouts that several formats share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from thriftbit.formats.format import LARGEST_HALF, ByteArray, FloatArray


def half(values: FloatArray) -> FloatArray:
    """Round to the nearest half-precision number. Values that are too large become the largest one."""
    clipped = np.clip(values, -np.float32(LARGEST_HALF), np.float32(LARGEST_HALF))
    return clipped.astype(np.float16).astype(np.float32)


def half_bytes(values: FloatArray) -> ByteArray:
    """(n,) half-precision numbers -> (n, 2) bytes. Negative zero becomes zero."""
    return np.ascontiguousarray((values + np.float32(0)).astype("<f2")).view(np.uint8).reshape(-1, 2)


def half_values(pair: ByteArray) -> FloatArray:
    """(n, 2) -> (n, 1) float32"""
    return np.ascontiguousarray(pair).view("<f2").astype(np.float32).reshape(-1, 1)


def pack_scales_and_mins(scales: ByteArray, mins: ByteArray) -> ByteArray:
    """Pack eight 6-bit scales and eight 6-bit mins into twelve bytes, as Q4_K and Q5_K store them. (n, 8), (n, 8) ->
    (n, 12).

    Bytes 0 to 3 hold four scales, bytes 4 to 7 four mins, and bytes 8 to 11 the low four bits of the other eight
    numbers. The high two bits of those are in the top bits of bytes 0 to 7.
    """
    low_scales, high_scales = scales[:, :4], scales[:, 4:]
    low_mins, high_mins = mins[:, :4], mins[:, 4:]
    return np.hstack(
        [low_scales | high_scales >> 4 << 6, low_mins | high_mins >> 4 << 6, high_scales & 15 | (high_mins & 15) << 4]
    )


def unpack_scales_and_mins(packed: ByteArray) -> tuple[ByteArray, ByteArray]:
    """The inverse of `pack_scales_and_mins`. (n, 12) -> (n, 8), (n, 8)."""
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.hstack([first & 63, third & 15 | first >> 6 << 4])
    mins = np.hstack([second & 63, third >> 4 | second >> 6 << 4])
    return scales, mins


def split_bits(packed: ByteArray, bits: int, group: int) -> ByteArray:
    """Split bytes that hold 8 / bits numbers each into the numbers. (n, bytes) -> (n, bytes * 8 / bits).

    A group of `group` bytes holds the first `group` numbers in its lowest bits, the next `group` numbers in the next
    bits, and so on.
    """
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    grouped = packed.reshape(len(packed), -1, 1, group) >> shifts[:, None]
    numbers: ByteArray = (grouped & np.uint8((1 << bits) - 1)).reshape(len(packed), -1)
    return numbers


def join_bits(numbers: NDArray[np.integer[Any]], bits: int, group: int) -> ByteArray:
    """The inverse of `split_bits`. (n, numbers) -> (n, numbers * bits / 8)."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    grouped = numbers.astype(np.uint8).reshape(len(numbers), -1, len(shifts), group) << shifts[:, None]
    joined: ByteArray = np.bitwise_or.reduce(grouped, axis=2)
    return joined.reshape(len(numbers), -1)


def split_fifth_bits(packed: ByteArray) -> ByteArray:
    """Unpack blocks of 32 numbers of 5 bits: 4 bytes of highest bits, then 16 bytes of nibbles. (n, 20) -> (n, 32)."""
    fifth: ByteArray = np.unpackbits(packed[:, :4], axis=1, bitorder="little")
    return split_bits(packed[:, 4:], 4, 16) | fifth << np.uint8(4)


def join_fifth_bits(numbers: ByteArray) -> ByteArray:
    """The way back. (n, 32) -> (n, 20)"""
    return np.hstack([np.packbits(numbers >> 4, axis=1, bitorder="little"), join_bits(numbers & 15, 4, 16)])


def split_even_signs(sevens: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Unpack the signs of eight weights each from seven bits: the eighth makes the number of minus signs even.
    (n, groups) -> (n, groups * 8), True for minus."""
    signs = (sevens[..., None] >> np.arange(8, dtype=sevens.dtype) & 1).astype(np.bool_)
    signs[..., 7] = np.bitwise_xor.reduce(signs[..., :7], axis=-1)
    return signs.reshape(len(sevens), -1)


def join_even_signs(signs: NDArray[np.bool_]) -> ByteArray:
    """The inverse of `split_even_signs`. (n, weights) -> (n, weights / 8)."""
    return np.packbits(signs, axis=1, bitorder="little") & np.uint8(127)
