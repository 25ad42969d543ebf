"""Short names that the user gave to models: `thriftbit alias set qwen FILE`. One JSON document in the data folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

from thriftbit.containers.regular_files import read_regular
from thriftbit.errors import ThriftbitError, UsageError, shown
from thriftbit.folders import data_folder
from thriftbit.machine.private_files import write_private

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,63}")
_LARGEST_BYTES = 1 << 20


def aliases_file() -> Path:
    return data_folder() / "aliases.json"


def read_aliases() -> dict[str, str]:
    """Return the path or the name on the Hub of each alias. A damaged file counts as empty, so that models can be used
    nonetheless."""
    try:
        document = json.loads(read_regular(aliases_file(), _LARGEST_BYTES))
    except (ThriftbitError, ValueError, RecursionError):
        return {}
    pairs = document.items() if isinstance(document, dict) else ()
    return {name: target for name, target in pairs if isinstance(target, str) and _NAME.fullmatch(name)}


def set_alias(name: str, target: str) -> None:
    """Store an alias. target: an absolute path or a name on the Hub. Raises UsageError for a name that cannot be an
    alias."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{shown(name)} cannot be an alias: use up to 64 letters, digits, '-', '_', '.' or ':', and no '/'"
        )
    if Path(name).exists():
        raise UsageError(f"{name} is a file or folder here, and those come before aliases; choose another name")
    _write(read_aliases() | {name: target})


def remove_alias(name: str) -> str:
    """Remove the alias and return its target. Raises UsageError if there is no such alias."""
    aliases = read_aliases()
    if name not in aliases:
        known = f"There are: {', '.join(sorted(aliases))}" if aliases else "There are none yet"
        raise UsageError(f"there is no alias {shown(name)}. {known}")
    target = aliases.pop(name)
    _write(aliases)
    return target


def _write(aliases: dict[str, str]) -> None:
    content = json.dumps(dict(sorted(aliases.items())), indent=1) + "\n"
    write_private(aliases_file(), content.encode())
