"""Short names that the user gave to models: `thriftbit alias set qwen FILE`. One JSON document in the data folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

from thriftbit.containers.atomic_file import AtomicFile
from thriftbit.errors import ThriftbitError, UsageError, shown
from thriftbit.machine.cache import data_folder

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,63}")
_LARGEST_BYTES = 1 << 20


def aliases_file() -> Path:
    return data_folder() / "aliases.json"


def read_aliases() -> dict[str, str]:
    """-> alias: path or name on the Hub. What is damaged counts as empty: it must not keep anybody from a model."""
    try:
        if aliases_file().stat().st_size > _LARGEST_BYTES:
            return {}
        document = json.loads(aliases_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    pairs = document.items() if isinstance(document, dict) else ()
    return {name: target for name, target in pairs if isinstance(target, str) and _NAME.fullmatch(name)}


def set_alias(name: str, target: str) -> None:
    """target: an absolute path or a name on the Hub. Raises ThriftbitError for a name that cannot be one."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{shown(name)} cannot be an alias: use up to 64 letters, digits, '-', '_', '.' or ':', and no '/'"
        )
    if Path(name).exists():
        raise UsageError(f"{name} is a file or folder here, which comes before an alias; choose another name")
    _write(read_aliases() | {name: target})


def remove_alias(name: str) -> str:
    """-> what it stood for"""
    aliases = read_aliases()
    if name not in aliases:
        known = f"There are: {', '.join(sorted(aliases))}" if aliases else "There are none yet"
        raise UsageError(f"there is no alias {shown(name)}. {known}")
    target = aliases.pop(name)
    _write(aliases)
    return target


def _write(aliases: dict[str, str]) -> None:
    file = aliases_file()
    content = (json.dumps(dict(sorted(aliases.items())), indent=1, ensure_ascii=False) + "\n").encode()
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ThriftbitError(f"{file.parent}: cannot be written: {error.strerror}") from None
    with AtomicFile(file, len(content), force=True) as stream:
        stream.write(content)
