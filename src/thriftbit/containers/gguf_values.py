"""How metadata values are stored in GGUF: the one table that the reader and the writer share.

Specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. A value is a number, a bool, a string or a
one-dimensional array of those; in Python numbers are numpy scalars, so that they remember their exact type. Arrays of
arrays are in the specification, but llama.cpp refuses them and so do we.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np
from gguf import GGUFValueType, Keys
from numpy.typing import NDArray

# Metadata is typed, so values carry their type: np.uint32(4), np.float32(1e-5), True, "text", an array of numbers as a
# 1-D numpy array of the exact dtype, an array of strings as a list.
MetadataValue = str | bool | np.generic | NDArray[np.generic] | list[str]
Metadata = Mapping[str, MetadataValue]

MAGIC = b"GGUF"
VERSION = 3
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4

NUMBER_TYPES: Mapping[GGUFValueType, np.dtype[np.generic]] = {
    GGUFValueType.UINT8: np.dtype(np.uint8),
    GGUFValueType.INT8: np.dtype(np.int8),
    GGUFValueType.UINT16: np.dtype(np.uint16),
    GGUFValueType.INT16: np.dtype(np.int16),
    GGUFValueType.UINT32: np.dtype(np.uint32),
    GGUFValueType.INT32: np.dtype(np.int32),
    GGUFValueType.FLOAT32: np.dtype(np.float32),
    GGUFValueType.BOOL: np.dtype(np.bool_),
    GGUFValueType.UINT64: np.dtype(np.uint64),
    GGUFValueType.INT64: np.dtype(np.int64),
    GGUFValueType.FLOAT64: np.dtype(np.float64),
}
_TYPE_OF_DTYPE = {dtype: value_type for value_type, dtype in NUMBER_TYPES.items()}


def padded(offset: int, alignment: int) -> int:
    """Return the first multiple of `alignment` (a power of two) that is not below `offset`."""
    return -(-offset // alignment) * alignment


def alignment_of(metadata: Mapping[str, MetadataValue]) -> int:
    """Return what tensor data is aligned to; ValueError if the metadata asks for something that GGUF does not allow."""
    alignment = metadata.get(Keys.General.ALIGNMENT, np.uint32(DEFAULT_ALIGNMENT))
    if not isinstance(alignment, np.uint32) or int(alignment).bit_count() != 1:
        raise ValueError(f"{Keys.General.ALIGNMENT} must be a power of two of type uint32")
    return int(alignment)


def decode_text(raw: bytes) -> str:
    """Text of a metadata value. Token pieces of real models are not always UTF-8; such bytes survive a round trip."""
    return raw.decode("utf-8", "surrogateescape")


def encode_string(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def encode_value(value: MetadataValue) -> bytes:
    """Return the value's type and content as GGUF stores them; TypeError for a value that has no exact GGUF type."""
    if isinstance(value, str):
        return struct.pack("<I", GGUFValueType.STRING) + encode_string(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        head = struct.pack("<IIQ", GGUFValueType.ARRAY, GGUFValueType.STRING, len(value))
        return head + b"".join(map(encode_string, value))
    number = np.bool_(value) if isinstance(value, bool) else value
    if not isinstance(number, np.generic | np.ndarray) or number.dtype not in _TYPE_OF_DTYPE or number.ndim > 1:
        raise TypeError(f"GGUF metadata cannot hold {value!r}; numbers are given as numpy scalars or 1-D arrays")
    value_type = _TYPE_OF_DTYPE[number.dtype]
    content = number.astype(number.dtype.newbyteorder("<")).tobytes()
    if isinstance(number, np.ndarray):
        return struct.pack("<IIQ", GGUFValueType.ARRAY, value_type, number.size) + content
    return struct.pack("<I", value_type) + content
