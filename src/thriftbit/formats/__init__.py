"""How numbers are stored: one file per format. To add a format, add a file that defines `FORMAT`; the registry, the
command line, the presets' checks, the documentation table and the conformance tests find it here."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace

from thriftbit.errors import UsageError
from thriftbit.formats.format import Format, WeightError
from thriftbit.formats.grid import Grid
from thriftbit.formats.plain import plain_encoder
from thriftbit.formats.plain_vectors import plain_vector_encoder


def _discover() -> dict[str, Format]:
    names = [info.name for info in pkgutil.iter_modules(__path__) if info.name != "__main__"]
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    found = [_with_encoder(module.FORMAT) for module in modules if hasattr(module, "FORMAT")]
    return {format.name: format for format in sorted(found, key=lambda f: (-f.bits_per_weight, f.name))}


def _with_encoder(format: Format) -> Format:
    """Return the format with the plain encoder, where it has a grid and no encoder of its own."""
    if format.encode_blocks is not None or format.grid is None:
        return format
    if isinstance(format.grid, Grid):
        return replace(format, encode_blocks=plain_encoder(format.grid, format.block_size))
    return replace(format, encode_blocks=plain_vector_encoder(format.grid, format.block_size))


FORMATS: dict[str, Format] = _discover()
"""Every format that can be written, from the most bits to the fewest."""


def format_named(name: str) -> Format:
    """Return the format of that name (any case). UsageError lists the choices if there is none."""
    for format in FORMATS.values():
        if format.name.lower() == name.lower():
            return format
    raise UsageError(f"there is no format {name!r}; the formats are {', '.join(FORMATS)}")


__all__ = ["FORMATS", "Format", "WeightError", "format_named"]
