"""LM Studio: PUBLISHER/REPOSITORY/FILE.gguf in its folder of models, as the Hub has it. Nothing else is registered.

The folder is the one that LM Studio's settings.json names (downloadsFolder), otherwise ~/.lmstudio/models, or
~/.cache/lm-studio/models where an older version left that. A file that lies higher is not found by it. Template, stop
tokens and parameters are read from the file. Layout: https://lmstudio.ai/docs/app/advanced/import-model, and
src/modelsFolder.ts of https://github.com/lmstudio-ai/lms.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from thriftbit.errors import ThriftbitError, UsageError, shown
from thriftbit.runtime.export.exported_file import ExportedFile
from thriftbit.runtime.export.transaction import (
    Destination,
    Placed,
    Transaction,
)
from thriftbit.sources.json_object import read_json_object

_PUBLISHER = "thriftbit"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,79}")


class LMStudio:
    program = "LM Studio"

    def __init__(self, exported: ExportedFile, name: str | None, folder: Path | None) -> None:
        publisher, repository = _parse(name) if name is not None else (_PUBLISHER, f"{exported.model_name}-GGUF")
        self._exported = exported
        folder = folder or models_folder(Path.home())
        self._repository = folder / publisher / repository
        self._targets = [self._repository / file for file in exported.file_names]
        self.destination = Destination(
            name=f"{publisher}/{repository}",
            folder=folder,
            marker=self._targets[0],
            command="lms load",
            notes=("LM Studio lists it under My Models; `lms load` lets you choose it there.",),
            details={},
        )

    def taken(self) -> Sequence[Path]:
        pairs = zip(self._exported.files, self._targets, strict=True)
        return [target for source, target in pairs if target.exists() and not target.samefile(source)]

    def register(self, transaction: Transaction, replace: bool) -> list[Placed]:
        transaction.folder(self._repository)
        pairs = list(zip(self._exported.files, self._targets, strict=True))
        # The first part last: it is the one that is opened.
        placed = [transaction.place(source, target, replace=replace) for source, target in reversed(pairs)]
        return placed[::-1]


def models_folder(home: Path) -> Path:
    """Return where LM Studio keeps models, which need not exist."""
    newer, older = home / ".lmstudio", home / ".cache" / "lm-studio"
    base = older if older.is_dir() and not newer.is_dir() else newer
    try:
        chosen = read_json_object(base / "settings.json").get("downloadsFolder")
    except (ThriftbitError, OSError):  # never started, or not ours to judge: LM Studio then takes the default as well
        chosen = None
    return Path(chosen) if isinstance(chosen, str) and Path(chosen).is_absolute() else base / "models"


def _parse(name: str) -> tuple[str, str]:
    publisher, slash, repository = name.partition("/")
    if not slash:
        publisher, repository = _PUBLISHER, name
    for part in (publisher, repository):
        if not _NAME.fullmatch(part):
            raise UsageError(
                f"--name {shown(name)}: LM Studio's models are named PUBLISHER/REPOSITORY, each of letters, digits, "
                '"_", "-" and "."'
            )
    return publisher, repository
