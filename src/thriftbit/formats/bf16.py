"""BF16: the upper half of a single-precision number, rounded to nearest even. 7 bits of fraction, full range."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray, Format


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    bits = x.view(np.uint32)
    tie_to_even = (bits >> np.uint32(16)) & np.uint32(1)
    upper = (bits + np.uint32(0x7FFF) + tie_to_even) >> np.uint32(16)
    return upper.astype("<u2").view(np.uint8).reshape(-1, 2)


def decode(blocks: ByteArray) -> FloatArray:
    return (blocks.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)


FORMAT = Format(
    "BF16",
    block_size=1,
    block_bytes=2,
    decode_blocks=decode,
    encode_blocks=encode,
    largest=3.3895313892515355e38,
    summary="what most models are published in",
)
