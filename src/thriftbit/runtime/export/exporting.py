"""Hand a GGUF file to Ollama, LM Studio or llama.cpp, so that they list it, without a second copy of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from thriftbit.errors import ThriftbitError, UsageError, shown
from thriftbit.library.kinds import EMBEDDING, KINDS, TEXT
from thriftbit.machine.programs import found_programs
from thriftbit.machine.surroundings import LiveSurroundings
from thriftbit.progress import Progress, no_progress
from thriftbit.runtime.export.chat_format import NO_TEMPLATE
from thriftbit.runtime.export.exported_file import ExportedFile, read_exported_file
from thriftbit.runtime.export.llama_cpp import LlamaCpp
from thriftbit.runtime.export.lm_studio import LMStudio
from thriftbit.runtime.export.ollama import Ollama
from thriftbit.runtime.export.transaction import (
    Destination,
    Placed,
    Target,
    Transaction,
    check_writable,
    expected_way,
)

PROGRAMS = ("ollama", "lmstudio", "llama.cpp")
_INSTALLED_AS = {"ollama": ("Ollama",), "lmstudio": ("LM Studio",), "llama.cpp": ("llama-server", "llama-cli")}


@dataclass(frozen=True)
class Export:
    """program and name: what knows the model now, and as what. placed: its files; empty after a dry run. size_bytes: of
    the model. way: how its weights got there, or would. command: what to type to run it. installed: whether the program
    was found here. details: what was composed for it (Ollama's template and parameters)."""

    program: str
    name: str
    folder: Path
    marker: Path
    size_bytes: int
    way: str
    placed: tuple[Placed, ...]
    command: str
    installed: bool
    notes: tuple[str, ...]
    details: dict[str, Any]
    dry_run: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return as JSON has it."""
        document = asdict(self) | {"folder": str(self.folder), "marker": str(self.marker)}
        document["placed"] = [asdict(each) | {"path": str(each.path)} for each in self.placed]
        return document


def export(
    file: str | Path,
    to: str,
    *,
    name: str | None = None,
    folder: str | Path | None = None,
    force: bool = False,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> Export:
    """Register a GGUF file with another program, and say how to run it there.

    to: "ollama", "lmstudio" or "llama.cpp". name: what that program is to call it; from the file's name otherwise.
    folder: where it keeps models, if not where it usually does. force: replace what has that name. dry_run: check, and
    change nothing. A copy is logged before it begins. progress: told what is read.

    Raises ThriftbitError for a file that the program is known not to load, a name that is taken, a folder that may not
    be written, a disk too small for a copy; UsageError for a program or name that there cannot be. Whatever is raised,
    KeyboardInterrupt included, nothing new is left behind.
    """
    if to not in PROGRAMS:
        raise UsageError(f"there is no export to {shown(to)}; choose {', '.join(PROGRAMS[:-1])} or {PROGRAMS[-1]}")
    exported = read_exported_file(Path(file))
    target = _target(to, exported, name, Path(folder).expanduser().absolute() if folder else None, progress)
    _check(target, force)
    placed: list[Placed] = []
    if not dry_run:
        with Transaction(progress) as transaction:
            placed = target.register(transaction, force)
    return _result(to, exported, target, placed, dry_run)


def _target(to: str, exported: ExportedFile, name: str | None, folder: Path | None, progress: Progress) -> Target:
    if to == "ollama":
        return Ollama(exported, name, folder, progress)
    make: Callable[[ExportedFile, str | None, Path | None], Target] = LMStudio if to == "lmstudio" else LlamaCpp
    return make(exported, name, folder)


def _check(target: Target, force: bool) -> None:
    taken = target.taken()
    if taken and not force:
        raise ThriftbitError(
            f"{target.program} has a {shown(target.destination.name)} already ({taken[0]}); choose another --name, or "
            "replace it with --force"
        )
    check_writable(target.destination.marker.parent)


def _result(to: str, exported: ExportedFile, target: Target, placed: list[Placed], dry_run: bool) -> Export:
    destination = target.destination
    way = placed[0].way if placed else expected_way(exported.files[0], destination.folder)
    return Export(
        program=target.program,
        name=destination.name,
        folder=destination.folder,
        marker=destination.marker,
        size_bytes=exported.size_bytes,
        way=way,
        placed=tuple(placed),
        command=_command(to, exported, destination),
        installed=_is_installed(to),
        notes=_notes(exported, destination),
        details=destination.details,
        dry_run=dry_run,
    )


def _command(to: str, exported: ExportedFile, destination: Destination) -> str:
    """Run a language model. Only ask an embedding model or a reranker, with which nobody can chat."""
    kind = exported.content.kind
    if kind == TEXT or to == "lmstudio":
        return destination.command
    if to == "llama.cpp":
        return f"{destination.command} {'--embeddings' if kind == EMBEDDING else '--reranking'}"
    body = f'{{"model": "{destination.name}", "input": "a text"}}'
    return f"curl http://localhost:11434/api/embed -d '{body}'"


def _notes(exported: ExportedFile, destination: Destination) -> tuple[str, ...]:
    kind = exported.content.kind
    if kind == TEXT:
        return destination.notes
    others = tuple(note for note in destination.notes if note != NO_TEMPLATE)
    return (f"It is {KINDS[kind].what}.", *others)


def _is_installed(to: str) -> bool:
    if to == "llama.cpp" and shutil.which("llama-server"):
        return True
    return any(found.name in _INSTALLED_AS[to] for found in found_programs(LiveSurroundings()))


__all__ = ["PROGRAMS", "Export", "export"]
