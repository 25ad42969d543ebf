"""Small whole numbers in large ones, and small floating-point numbers by table.

All packed checkpoints but AWQ's lay their numbers out as one stream of bits, the lowest bits first, in words of 8 or
32 bits: number i of b bits begins at bit b·i, and may end in the next word. safetensors files are little-endian.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from thriftbit.sources.tensor import FloatArray

Codes = NDArray[np.uint8]


def unpack_bits(words: NDArray[Any], bits: int, count: int) -> Codes:
    """words: whole numbers (n, words of a row), packed along the last axis. bits: 1 to 8.
    Returns uint8 (n, count): the first `count` numbers of each row."""
    stream = np.ascontiguousarray(words).view(np.uint8)
    if bits == 8:
        return stream[:, :count]
    if 8 % bits == 0:
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        codes = (stream[:, :, None] >> shifts) & np.uint8((1 << bits) - 1)
        return codes.reshape(len(stream), stream.shape[1] * len(shifts))[:, :count]
    begin = np.arange(count) * bits
    low = stream[:, begin // 8].astype(np.uint16)
    high = stream[:, np.minimum(begin // 8 + 1, stream.shape[1] - 1)].astype(np.uint16)
    both = (low | high << np.uint16(8)) >> (begin % 8).astype(np.uint16)
    return (both & np.uint16((1 << bits) - 1)).astype(np.uint8)


def words_of(bits: int, count: int, word_bits: int = 32) -> int:
    """Return how many words `count` numbers of `bits` bits take."""
    return -(-count * bits // word_bits)


def _small_floats(exponent_bits: int, mantissa_bits: int, bias: int) -> FloatArray:
    """Return the value of every code of a floating-point type without infinities, sign first."""
    codes = np.arange(1 << (1 + exponent_bits + mantissa_bits))
    exponent = (codes >> mantissa_bits) & ((1 << exponent_bits) - 1)
    fraction = (codes & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    size = np.where(exponent == 0, np.ldexp(fraction, 1 - bias), np.ldexp(1 + fraction, exponent - bias))
    sign = np.where(codes >> (exponent_bits + mantissa_bits), -1, 1)
    values: FloatArray = (sign * size).astype(np.float32)
    return values


def _e4m3() -> FloatArray:
    values = _small_floats(4, 3, 7)
    values[[0x7F, 0xFF]] = np.nan
    return values


def _e5m2() -> FloatArray:
    values = _small_floats(5, 2, 15)
    values[[0x7C, 0xFC]] = np.inf, -np.inf
    values[[0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF]] = np.nan
    return values


def _fnuz(exponent_bits: int, mantissa_bits: int, bias: int) -> FloatArray:
    values = _small_floats(exponent_bits, mantissa_bits, bias)
    values[0x80] = np.nan
    return values


def _e8m0() -> FloatArray:
    values = np.full(256, np.nan, np.float32)
    values[:255] = np.ldexp(1.0, np.arange(255) - 127)
    return values


E2M1 = _small_floats(2, 1, 1) + np.float32(0)
"""float32 (16,): the values of MXFP4's and NVFP4's 4-bit codes. -0 is 0, as GGML reads it, so that a checkpoint and a
GGUF with the same codes have the same fingerprint."""

SMALL_FLOATS = {
    "F8_E4M3": _e4m3(),
    "F8_E5M2": _e5m2(),
    "F8_E4M3FNUZ": _fnuz(4, 3, 8),
    "F8_E5M2FNUZ": _fnuz(5, 2, 16),
    "F8_E8M0": _e8m0(),
}
"""safetensors' dtype -> float32 (256,): the value of each byte. OCP's OFP8 and MX specifications; FNUZ are AMD's."""
