"""NVFP4: blocks of 64 weights in four sub-blocks, x ≈ s·v with s an FP8 number (E4M3) and v a 4-bit floating-point
number. Stored as GGML does: v doubled, so that it is whole, with half of s. NVIDIA's checkpoints have one more scale
for the whole tensor; in a GGUF that would be a tensor of its own, and the blocks here do without."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thriftbit.formats.e2m1 import BY_NIBBLE, nearest_size, nibbles_of
from thriftbit.formats.format import ByteArray, FloatArray, Format
from thriftbit.formats.packing import join_bits, split_bits
from thriftbit.formats.search import columns, error, inverse

SCALES = np.array([np.ldexp(b & 7 | (b > 7) << 3, max(b >> 3, 1) - 11) for b in range(127)], np.float32)
"""float32 (127,): half of the E4M3 numbers from 0 to 448, in the order of their bytes."""

_BY_BYTE = np.concatenate([SCALES, [0], SCALES, [240]]).astype(np.float32)
"""float32 (256,): as GGML reads any byte. It ignores the highest bit. For bytes 127 and 255 E4M3 has no number; GGML
takes the former for zero only."""

_TRIED = range(-3, 7)
"""The scales next to the one that puts the largest weight at the largest value, and further up."""


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    columns_x, w = columns(x, importance, 16)
    size = np.abs(columns_x)
    first = _byte_near(size.max(axis=0) / np.float32(6))
    best, least = first, np.full(first.shape, np.inf, np.float32)
    for step in _TRIED:
        byte = np.clip(first + step, 0, len(SCALES) - 1)
        s = SCALES[byte]
        left = error(size, w, s * nearest_size(size * inverse(s)))
        better = left < least
        least, best = np.where(better, left, least), np.where(better, byte, best)
    nibbles = nibbles_of(nearest_size(size * inverse(SCALES[best])), columns_x)
    return np.hstack([best.astype(np.uint8).reshape(-1, 4), join_bits(nibbles.T.reshape(-1, 64), 4, 8)])


def _byte_near(s: FloatArray) -> NDArray[np.int32]:
    """Return the byte of the E4M3 number nearest to each s ≥ 0. Below 2⁻⁶ they are multiples of 2⁻⁹."""
    rounded = (s.view(np.int32) + (1 << 19) >> 20) - (120 << 3)
    byte = np.where(s < 2.0**-6, (s * np.float32(512) + np.float32(0.5)).astype(np.int32), rounded)
    return np.minimum(byte, len(SCALES) - 1).astype(np.int32)


def decode(blocks: ByteArray) -> FloatArray:
    levels = BY_NIBBLE[split_bits(blocks[:, 4:], 4, 8)].reshape(-1, 4, 16)
    x: FloatArray = (_BY_BYTE[blocks[:, :4]][:, :, None] * levels).reshape(-1, 64)
    return x


FORMAT = Format(
    "NVFP4",
    block_size=64,
    block_bytes=36,
    decode_blocks=decode,
    encode_blocks=encode,
    fallback="IQ4_NL",
    largest=448 * 6,
    summary="4 bits of NVIDIA's newest processors",
)
