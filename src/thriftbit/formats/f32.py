"""F32: IEEE single precision, as it is."""

from __future__ import annotations

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray, Format


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    packed: ByteArray = x.astype("<f4").view(np.uint8)
    return packed.reshape(-1, 4)


def decode(blocks: ByteArray) -> FloatArray:
    return blocks.view("<f4").astype(np.float32)


FORMAT = Format(
    "F32",
    block_size=1,
    block_bytes=4,
    decode_blocks=decode,
    encode_blocks=encode,
    largest=3.4028234663852886e38,
    summary="full precision, nothing lost",
)
