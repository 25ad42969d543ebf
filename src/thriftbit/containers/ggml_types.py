"""GGML's types: the number of each format in a GGUF file, and a format for each number.

Two lists are asked: what the `gguf` package knows, and what the llama.cpp in the box knows beyond it. The package lags
behind llama.cpp by months, and its list of types is a table. llama.cpp itself knows every type that it runs. Its
library exports ggml's functions for that; they are called in a process of their own, because the library is C++ that
may abort. A type without a decoder here has a name and a size, which is enough to list, to fit and to run a file.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import struct
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType

from thriftbit.formats import FORMATS, Format, format_named
from thriftbit.formats.format import ByteArray, FloatArray

_SECONDS = 30
_WIDTH = 1 << 16  # a row that every block size divides


class EngineType(int):
    """A type that llama.cpp knows and the `gguf` package does not; equal to its number, as the package's are."""

    name: str
    block_size: int
    block_bytes: int

    def __new__(cls, number: int, name: str, block_size: int, block_bytes: int) -> EngineType:
        made = super().__new__(cls, number)
        made.name, made.block_size, made.block_bytes = name, block_size, block_bytes
        return made


GGMLType = GGMLQuantizationType | EngineType

_BEYOND_GGUF = {"Q2_0": 42}
"""The numbers of formats that we write and the `gguf` package does not know. A test asks llama.cpp for them."""

_met: dict[str, EngineType] = {}


def ggml_type(number: int) -> GGMLType | None:
    """Return the type of that number; None if neither the `gguf` package nor llama.cpp has one."""
    if number in gguf.GGML_QUANT_SIZES:
        return GGMLQuantizationType(number)
    found = _ask_llama_cpp(number)
    if found is not None:
        _met[found.name] = found
    return found


def type_named(name: str) -> GGMLType:
    """Return the type of that name: one of the `gguf` package, or one
    that a file had before. KeyError for any other."""
    return _met[name] if name in _met else GGMLQuantizationType[name]


def block_of(kind: GGMLType) -> tuple[int, int]:
    """Return weights in a block, bytes in a block."""
    return (kind.block_size, kind.block_bytes) if isinstance(kind, EngineType) else gguf.GGML_QUANT_SIZES[kind]


def number_of(format: Format) -> int:
    """Return the number by which a GGUF names the format. KeyError for a format that GGML does not have."""
    return _BEYOND_GGUF.get(format.name) or int(type_named(format.name))


def format_of(type_name: str) -> Format:
    """Return the format that reads tensors of the GGML type of that name, as `format_for` does. UsageError if there is
    none."""
    try:
        return FORMATS.get(type_name) or read_only(type_named(type_name))
    except KeyError:
        return format_named(type_name)


def format_for(ggml_type: GGMLType) -> Format:
    """Return the format that reads tensors of that GGML type: one that can be written too, one that only decodes,
    through `gguf`, or one whose size alone is known."""
    return FORMATS.get(ggml_type.name) or read_only(ggml_type)


def read_only(ggml_type: GGMLType) -> Format:
    """Return a format that decodes through `gguf`; for types that `gguf` cannot decode either, one that has a size and
    no decoder (`can_decode`)."""
    block_size, block_bytes = block_of(ggml_type)
    decode = None
    if ggml_type == GGMLQuantizationType.F64:
        decode = _float32_of_float64
    elif isinstance(ggml_type, GGMLQuantizationType) and _gguf_decodes(ggml_type):
        decode = partial(gguf.quants.dequantize, qtype=ggml_type)
    return Format(ggml_type.name, block_size=block_size, block_bytes=block_bytes, decode_blocks=decode)


@cache
def _gguf_decodes(ggml_type: GGMLQuantizationType) -> bool:
    """Return whether `gguf` can decode the type: it is asked to decode one block of zeros."""
    _, block_bytes = gguf.GGML_QUANT_SIZES[ggml_type]
    try:
        gguf.quants.dequantize(np.zeros((1, block_bytes), np.uint8), ggml_type)
    except NotImplementedError:
        return False
    return True


def _float32_of_float64(blocks: ByteArray) -> FloatArray:
    return blocks.view("<f8").astype(np.float32)


@cache
def _ask_llama_cpp(number: int) -> EngineType | None:
    if importlib.util.find_spec("xllamacpp") is None or not 0 <= number < 1 << 31:
        return None
    command = [sys.executable, "-P", "-m", __name__, str(number)]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=True).stdout
        name, block_size, block_bytes = json.loads(answer)
    except (OSError, subprocess.SubprocessError, ValueError, TypeError):  # it aborted, or knows no such type
        return None
    return EngineType(number, str(name), int(block_size), int(block_bytes))


def _library() -> ctypes.CDLL:
    package = importlib.util.find_spec("xllamacpp")
    assert package is not None and package.origin is not None
    library = ctypes.CDLL(str(next(Path(package.origin).parent.glob("xllamacpp.*"))))
    library.gguf_init_from_buffer.restype = ctypes.c_void_p
    library.ggml_type_name.restype = ctypes.c_char_p
    library.ggml_blck_size.restype = ctypes.c_int64
    library.ggml_type_size.restype = ctypes.c_size_t
    return library


class _Settings(ctypes.Structure):
    """gguf_init_params: without the tensors' data"""

    _fields_ = (("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p))


def _answer(number: int) -> list[str | int] | None:
    """Return name, block size and bytes, from llama.cpp. Its functions do
    not check the number, its reader of files does."""
    library = _library()
    file = _file_with_a_tensor_of(number)
    if not library.gguf_init_from_buffer(file, ctypes.c_size_t(len(file)), _Settings(True, None)):
        return None
    name = library.ggml_type_name(number).decode().upper()
    return [name, library.ggml_blck_size(number), library.ggml_type_size(number)]


def _file_with_a_tensor_of(number: int) -> bytes:
    """Return a GGUF whose one tensor, of one row, has that type."""
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, 0)
    header += struct.pack("<Q", 1) + b"t" + struct.pack("<IQIQ", 1, _WIDTH, number, 0)
    return header + b"\0" * (-len(header) % 32) + b"\0" * (4 * _WIDTH)


if __name__ == "__main__":
    print(json.dumps(_answer(int(sys.argv[1]))))
