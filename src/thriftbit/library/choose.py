"""Chooses one of several GGUF files of a model: by level, by name, or by a sensible default."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from thriftbit.errors import UsageError, shown
from thriftbit.library.kinds import KINDS, hub_kind
from thriftbit.library.names import parse_quantization
from thriftbit.machine.room import estimated_need, room_here
from thriftbit.sizes import describe_bytes

_logger = logging.getLogger(__name__)

USUAL_LEVEL = "Q4_K_M"
_LISTED = 12


def choose_file(owner: str, sizes: Mapping[str, int], wanted: str) -> str:
    """Return the file that the user means.

    owner: the folder or repository, for messages. sizes: of whole files in bytes, by the name of the first part.
    wanted: a level ("Q4_K_M", "q4km", "4bit"), a file name, or "" for the sensible default, which is logged. Raises
    UsageError for a level that no file has, or that several have."""
    models = [name for name in sizes if KINDS[hub_kind(None, None, name)].is_whole] or list(sizes)
    models.sort(key=lambda name: sizes[name])
    if wanted and wanted.lower() != "latest":
        return _wanted(owner, models, sizes, wanted)
    if len(models) == 1:
        return models[0]
    chosen = _default(models, sizes)
    size = describe_bytes(sizes[chosen])
    _logger.info(
        f"{owner} has {len(models)} GGUF files; {chosen} ({size}) is taken. For another one, type {owner}:LEVEL"
    )
    return chosen


def _wanted(owner: str, models: list[str], sizes: Mapping[str, int], wanted: str) -> str:
    """Return the file with the wanted level or name. models: the files that are no parts of other models."""
    lower = wanted.lower()
    for name in sizes:
        if lower in (name.lower(), name.lower().removesuffix(".gguf"), name.rpartition("/")[2].lower()):
            return name
    level = parse_quantization(wanted)
    levels = {name: parsed.name if (parsed := parse_quantization(name)) else "" for name in models}
    found = [name for name in models if level is not None and levels[name] == level.name]
    found = found or [name for name in models if level is not None and levels[name] == f"UD-{level.name}"]
    found = found or [name for name in models if lower in name.lower()]
    if len(found) == 1:
        return found[0]
    if not found:
        have = list(dict.fromkeys(levels[name] or name for name in models))
        listed = ", ".join(have[:_LISTED]) + (" …" if len(have) > _LISTED else "")
        raise UsageError(f"{owner} has no file of level {shown(wanted)}; it has {listed}")
    listed = ", ".join(found[:4])
    raise UsageError(f"{owner} has {len(found)} files of level {shown(wanted)}; name one of them: {listed}")


def _default(names: list[str], sizes: Mapping[str, int]) -> str:
    """Return the file in Q4_K_M if it fits, else the largest smaller file that fits, else the smallest file."""
    room = room_here()
    usual = [name for name in names if (level := parse_quantization(name)) and level.name.endswith(USUAL_LEVEL)]
    limit = sizes[usual[0]] if usual else _usual_size(names, sizes)
    fitting = [
        name
        for name in names
        if sizes[name] <= limit and room.fits(estimated_need(sizes[name])) in ("yes", "tight", "unknown")
    ]
    if usual and usual[0] in fitting:
        return usual[0]
    return max(fitting or names, key=lambda name: sizes[name] if fitting else -sizes[name])


def _usual_size(names: list[str], sizes: Mapping[str, int]) -> int:
    """Return the bytes of the first file with about five bits per weight or less, or of the smallest file if there is
    none."""
    stated = {name: level.bits_per_weight for name in names if (level := parse_quantization(name))}
    small = [sizes[name] for name, bits in stated.items() if bits and bits < 5.2]
    return max(small, default=min(sizes[name] for name in names))
