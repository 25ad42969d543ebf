"""Which file came of which model, so that what was measured of a file is known after the file is gone.

A row of a measurement names the file by its weights. The same model, level, effort and version make the same weights,
so one line for each says which: who asks again for what was tried before needs neither the file nor time.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from thriftbit.containers.regular_files import read_regular
from thriftbit.errors import ThriftbitError
from thriftbit.folders import cache_folder
from thriftbit.machine.records import from_document
from thriftbit.measurement.store import append_lines

_LARGEST_BYTES = 64 << 20


@dataclass(frozen=True)
class Recipe:
    """source: fingerprint of the model. effort: "plain", or with what else decided the codes. version: of thriftbit."""

    source: str
    preset: str
    effort: str
    version: str


@dataclass(frozen=True)
class MadeFile:
    """fingerprint: of the file's weights"""

    recipe: Recipe
    fingerprint: str
    size_bytes: int


def made_files_path() -> Path:
    return cache_folder() / "made-files.jsonl"


def remember(made: MadeFile) -> None:
    """Raises ThriftbitError if it cannot be written."""
    append_lines(json.dumps(asdict(made)).encode() + b"\n", made_files_path(), "what was made")


def made_before(recipe: Recipe) -> MadeFile | None:
    """Return what the recipe made the last time; None for what was never made, or where that cannot be read."""
    path = made_files_path()
    if not path.is_file():
        return None
    try:
        lines = read_regular(path, _LARGEST_BYTES).splitlines()
    except ThriftbitError:
        return None
    return next((made for line in reversed(lines) if (made := _parsed(line)) and made.recipe == recipe), None)


def _parsed(line: bytes) -> MadeFile | None:
    try:
        return from_document(MadeFile, json.loads(line))
    except (ValueError, RecursionError, ThriftbitError):
        return None
