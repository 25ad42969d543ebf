"""llama.cpp's own encoders, through the C function that the xllamacpp wheel exports."""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thriftbit.containers.ggml_types import number_of
from thriftbit.formats import Format


@cache
def _library() -> ctypes.CDLL:
    package = importlib.util.find_spec("xllamacpp")
    assert package is not None and package.origin is not None, "install xllamacpp"
    library = ctypes.CDLL(str(next(Path(package.origin).parent.glob("xllamacpp.*.so"))))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,  # type
        ctypes.c_void_p,  # weights
        ctypes.c_void_p,  # blocks
        ctypes.c_int64,  # first weight
        ctypes.c_int64,  # rows
        ctypes.c_int64,  # width
        ctypes.c_void_p,  # importance
    ]
    return library


def encode(
    rows: NDArray[np.float32], format: Format, importance: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """rows: float32 (n, width), contiguous. importance: float32 (width,). -> uint8 (n, bytes of a row)"""
    blocks = np.empty((len(rows), format.row_bytes(rows.shape[1])), np.uint8)
    weights = None if importance is None else importance.ctypes.data
    _library().ggml_quantize_chunk(
        number_of(format), rows.ctypes.data, blocks.ctypes.data, 0, len(rows), rows.shape[1], weights
    )
    return blocks
