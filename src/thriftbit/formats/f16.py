"""F16: IEEE half precision, rounded to nearest even. 10 bits of fraction, largest value 65504."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray, Format


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    packed: ByteArray = x.astype("<f2").view(np.uint8)
    return packed.reshape(-1, 2)


def decode(blocks: ByteArray) -> FloatArray:
    return blocks.view("<f2").astype(np.float32)


FORMAT = Format(
    "F16",
    block_size=1,
    block_bytes=2,
    decode_blocks=decode,
    encode_blocks=encode,
    summary="half precision",
)
