"""How the kernel of Q5_K searches."""

from __future__ import annotations

from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.formats.q5_k import pack

from . import llama_cpp
from .k_with_mins import search

PLAIN = llama_cpp.Steps(-0.5, 0.1, 15)
"""How llama.cpp searches without importance."""


def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
    return pack(search(x, importance, 31, PLAIN))
