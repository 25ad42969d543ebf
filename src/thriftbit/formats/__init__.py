"""How numbers are stored: one file per format. To add a format, add a file that defines `FORMAT`; the registry, the
command line, the presets' checks, the documentation table and the conformance tests find it here."""

from __future__ import annotations

import importlib
import pkgutil

import gguf
import numpy as np

from thriftbit.errors import ThriftbitError, UsageError
from thriftbit.formats.format import ByteArray, FloatArray, Format, WeightError


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


def format_for(ggml_type: gguf.GGMLQuantizationType) -> Format:
    """Return the format that reads tensors of that GGML type: one of this folder, or one that only decodes, through
    `gguf`."""
    for format in FORMATS.values():
        if format.ggml_type == ggml_type:
            return format
    return read_only(ggml_type)


def read_only(ggml_type: gguf.GGMLQuantizationType) -> Format:
    """Return a format that decodes through `gguf`. ThriftbitError for types that `gguf` cannot decode either."""
    if ggml_type == gguf.GGMLQuantizationType.F64:
        return Format(ggml_type.name, ggml_type, _float32_of_float64)
    if ggml_type not in gguf.quants._type_traits:
        raise ThriftbitError(f"weights stored as {ggml_type.name} cannot be decoded here")
    return Format(ggml_type.name, ggml_type, lambda blocks: gguf.quants.dequantize(blocks, ggml_type))


def _float32_of_float64(blocks: ByteArray) -> FloatArray:
    return blocks.view("<f8").astype(np.float32)


__all__ = ["FORMATS", "Format", "WeightError", "format_for", "format_named", "read_only"]
