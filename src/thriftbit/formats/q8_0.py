"""Q8_0: blocks of 32 weights, x ≈ d·l, d half precision, l a signed byte."""

from __future__ import annotations

import gguf
import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray, Format
from thriftbit.formats.search import half, inverse, nearest


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    d = half(np.abs(x).max(axis=1) / np.float32(127))
    levels = nearest(x * inverse(d)[:, None], -127, 127)
    return np.hstack([d[:, None].astype("<f2").view("u1"), levels.astype("i1").view("u1")])


def decode(blocks: ByteArray) -> FloatArray:
    d = blocks[:, :2].view("<f2").astype("f4")
    return d * blocks[:, 2:].view("i1").astype("f4")


FORMAT = Format("Q8_0", gguf.GGMLQuantizationType.Q8_0, decode, encode, summary="nearly lossless")
