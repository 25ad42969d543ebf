"""llama.cpp: a repository in the folder where llama-server and llama-cli keep what -hf downloads.

Since spring 2026 that is the Hub's own cache and layout: models--OWNER--NAME with refs/main, which names a commit, and
snapshots/COMMIT with the files (common/hf-cache.cpp). Files lie in snapshots/ themselves and not behind links to
blobs/, which llama.cpp and huggingface_hub both do where there are no symbolic links: so nothing need be hashed, and no
link breaks.

The owner is "thriftbit" unless --name says otherwise, and the commit is one that no repository has: so what we made is
told from what was downloaded, which is never added to. With --offline llama.cpp does not ask the Hub about it. Anything
else of llama.cpp's runs a file from where it lies: `llama-cli -m FILE`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from thriftbit.errors import ThriftbitError, UsageError, shown
from thriftbit.runtime.export.exported_file import ExportedFile
from thriftbit.runtime.export.transaction import (
    Destination,
    Placed,
    Transaction,
)
from thriftbit.strangers import quoted

_OWNER = "thriftbit"
_COMMIT = hashlib.sha1(b"exported by thriftbit", usedforsecurity=False).hexdigest()
# hf-cache.cpp: letters, digits and "_"; "." and "-" only singly and inside, as "--" stands for "/" in folders' names
_NAME = re.compile(r"\w+(?:[.\-]\w+)*", re.ASCII)


class LlamaCpp:
    program = "llama.cpp"

    def __init__(self, exported: ExportedFile, name: str | None, folder: Path | None) -> None:
        owner, repository = _parse(name) if name is not None else (_OWNER, f"{_single(exported.model_name)}-GGUF")
        self._exported = exported
        folder = folder or cache_folder(os.environ, Path.home())
        self._repository = folder / f"models--{owner}--{repository}"
        self._reference = self._repository / "refs" / "main"
        self._snapshot = self._repository / "snapshots" / _COMMIT
        self._targets = [self._snapshot / file for file in exported.file_names]
        self._check_ours()
        known = f"{owner}/{repository}"
        file = exported.file_names[0]
        tagged = re.search(rf"{re.escape(exported.quantization)}[.-]", file, re.IGNORECASE)
        which = f"-hf {quoted(known + ':' + exported.quantization)}" if tagged else f"-hf {known} -hff {quoted(file)}"
        self.destination = Destination(
            name=known,
            folder=folder,
            marker=self._targets[0],
            command=f"llama-server {which} --offline",
            notes=("Without --offline llama.cpp asks the Hub for a repository of that name first.",),
            details={},
        )

    def taken(self) -> Sequence[Path]:
        pairs = zip(self._exported.files, self._targets, strict=True)
        return [target for source, target in pairs if target.exists() and not target.samefile(source)]

    def register(self, transaction: Transaction, replace: bool) -> list[Placed]:
        transaction.folder(self._snapshot)
        transaction.folder(self._reference.parent)
        pairs = list(zip(self._exported.files, self._targets, strict=True))
        placed = [transaction.place(source, target, replace=replace) for source, target in reversed(pairs)]
        placed.reverse()
        if not self._reference.exists():
            placed.append(transaction.write(self._reference, _COMMIT.encode()))
        return placed

    def _check_ours(self) -> None:
        try:
            commit = self._reference.read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            commit = _COMMIT
        except OSError as error:
            raise ThriftbitError(f"{self._reference}: cannot be read: {error.strerror}") from None
        if commit != _COMMIT:
            raise ThriftbitError(
                f"{self._repository} was downloaded from the Hub, and nothing is added to that; choose another --name"
            )


def cache_folder(environment: Mapping[str, str], home: Path) -> Path:
    """Return where llama.cpp keeps models, in the order in which it looks."""
    for variable, below in (
        ("LLAMA_CACHE", ""),
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
    ):
        if environment.get(variable):
            return Path(environment[variable]) / below
    return home / ".cache" / "huggingface" / "hub"


def _single(name: str) -> str:
    """Return the name with no "--" or ".-" in it."""
    return re.sub(r"[.\-]{2,}", "-", name)


def _parse(name: str) -> tuple[str, str]:
    owner, slash, repository = name.partition("/")
    if not slash:
        owner, repository = _OWNER, name
    for part in (owner, repository):
        if not _NAME.fullmatch(part) or len(part) > 96:
            raise UsageError(
                f'--name {shown(name)}: llama.cpp\'s models are named OWNER/NAME, each of letters, digits and "_", '
                'with single "-" and "." in between'
            )
    return owner, repository
