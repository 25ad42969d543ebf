"""F32: IEEE single precision, as it is."""

from __future__ import annotations

import gguf

from thriftbit.formats.format import ByteArray, FloatArray, Format


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    return x.astype("<f4").view("u1").reshape(len(x), 4)


def decode(blocks: ByteArray) -> FloatArray:
    return blocks.view("<f4").astype("f4")


FORMAT = Format("F32", gguf.GGMLQuantizationType.F32, decode, encode, largest=3.4028234663852886e38, summary="full precision, nothing lost")
