"""llama.cpp's own encoders and decoders, through the C functions that the xllamacpp wheel exports."""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thriftbit.containers.ggml_types import number_of
from thriftbit.formats import Format


class _TypeTraits(ctypes.Structure):
    """ggml_type_traits"""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("block_size", ctypes.c_int64),
        ("interleaved", ctypes.c_int64),
        ("block_bytes", ctypes.c_size_t),
        ("quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        ("from_float", ctypes.c_void_p),
    )


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
    library.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
    library.ggml_get_type_traits.restype = ctypes.POINTER(_TypeTraits)
    library.ggml_get_type_traits.argtypes = [ctypes.c_int]
    return library


def encode(
    rows: NDArray[np.float32], format: Format, importance: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """rows: float32 (n, width), contiguous. importance: float32 (width,). Returns uint8 (n, bytes of a row).

    Where llama.cpp refuses to encode without importance, it is given an importance of one."""
    if importance is None and _library().ggml_quantize_requires_imatrix(number_of(format)):
        importance = np.ones(rows.shape[1], np.float32)
    blocks = np.empty((len(rows), format.row_bytes(rows.shape[1])), np.uint8)
    weights = None if importance is None else importance.ctypes.data
    _library().ggml_quantize_chunk(
        number_of(format), rows.ctypes.data, blocks.ctypes.data, 0, len(rows), rows.shape[1], weights
    )
    return blocks


def decode(blocks: NDArray[np.uint8], format: Format) -> NDArray[np.float32]:
    """blocks: uint8 (n, bytes of a row), contiguous. Returns float32 (n, width)."""
    rows = np.empty((len(blocks), blocks.shape[1] // format.block_bytes * format.block_size), np.float32)
    traits = _library().ggml_get_type_traits(number_of(format)).contents
    assert (traits.block_size, traits.block_bytes) == (format.block_size, format.block_bytes)
    traits.to_float(blocks.ctypes.data, rows.ctypes.data, rows.size)
    return rows
