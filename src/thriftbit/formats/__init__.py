"""How numbers are stored: one file per format. To add a format, add a file that defines `FORMAT`; the registry, the
command line, the presets' checks, the documentation table and the conformance tests find it here."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache, partial

import gguf
import numpy as np

from thriftbit.errors import UsageError
from thriftbit.formats.format import ByteArray, FloatArray, Format, WeightError
from thriftbit.formats.ggml_types import EngineType, GGMLType, type_named


def _discover() -> dict[str, Format]:
    names = [info.name for info in pkgutil.iter_modules(__path__) if info.name != "__main__"]
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    found = [module.FORMAT for module in modules if hasattr(module, "FORMAT")]
    return {format.name: format for format in sorted(found, key=lambda f: (-f.bits_per_weight, f.name))}


FORMATS: dict[str, Format] = _discover()
"""Every format that can be written, from the most bits to the fewest."""


def format_named(name: str) -> Format:
    """Return the format of that name (any case). UsageError lists the choices if there is none."""
    for format in FORMATS.values():
        if format.name.lower() == name.lower():
            return format
    raise UsageError(f"there is no format {name!r}; the formats are {', '.join(FORMATS)}")


def format_of(type_name: str) -> Format:
    """Return the format that reads tensors of the GGML type of that name, as `format_for` does. UsageError if there is
    none."""
    for format in FORMATS.values():
        if format.name == type_name:
            return format
    try:
        return read_only(type_named(type_name))
    except KeyError:
        return format_named(type_name)


def format_for(ggml_type: GGMLType) -> Format:
    """Return the format that reads tensors of that GGML type: one of this folder, one that only decodes, through
    `gguf`, or one whose size alone is known."""
    for format in FORMATS.values():
        if format.ggml_type == ggml_type:
            return format
    return read_only(ggml_type)


def read_only(ggml_type: GGMLType) -> Format:
    """Return a format that decodes through `gguf`; for types that `gguf` cannot decode either, one that has a size and
    no decoder (`can_decode`)."""
    if ggml_type == gguf.GGMLQuantizationType.F64:
        return Format(ggml_type.name, ggml_type, _float32_of_float64)
    if isinstance(ggml_type, EngineType) or not _gguf_decodes(ggml_type):
        return Format(ggml_type.name, ggml_type, None)
    return Format(ggml_type.name, ggml_type, partial(gguf.quants.dequantize, qtype=ggml_type))


@cache
def _gguf_decodes(ggml_type: gguf.GGMLQuantizationType) -> bool:
    """-> whether `gguf` can decode the type: it is asked to decode one block of zeros"""
    _, block_bytes = gguf.GGML_QUANT_SIZES[ggml_type]
    try:
        gguf.quants.dequantize(np.zeros((1, block_bytes), np.uint8), ggml_type)
    except NotImplementedError:
        return False
    return True


def _float32_of_float64(blocks: ByteArray) -> FloatArray:
    return blocks.view("<f8").astype(np.float32)


__all__ = ["FORMATS", "Format", "WeightError", "format_for", "format_named", "format_of", "read_only"]
