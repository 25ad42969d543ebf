"""What may be a model on this disk: names of files that belong together, nothing of which has been opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Candidate:
    """name: as its program calls it, or its path. place: who keeps it. files: all that hold weights, and for a folder
    its configuration, first. folder: of safetensors; None for GGUF. sha256: of its one file, where its program keeps
    that. aliases: other names of the same. problem: why it cannot be opened, where that is known already."""

    name: str
    place: str
    files: tuple[Path, ...]
    folder: Path | None = None
    sha256: str | None = None
    aliases: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def path(self) -> Path:
        """-> what other commands are given"""
        return self.folder or self.files[0]
