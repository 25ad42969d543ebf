"""Files on this disk that belong together and may be a model. They have not been opened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from thriftbit.sources.gguf_source import PART_NAME


@dataclass(frozen=True)
class Candidate:
    """name: the name in the program that keeps the model, or the path. place: the program or folder that keeps it.
    files: all files with weights; for a folder of safetensors, config.json comes first. folder: of safetensors, None
    for a GGUF. sha256: of a single file, if its program stores the hash. aliases: other names of the same file.
    problem: why it cannot be opened, if that is known."""

    name: str
    place: str
    files: tuple[Path, ...]
    folder: Path | None = None
    sha256: str | None = None
    aliases: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def path(self) -> Path:
        """The path that other commands take."""
        return self.folder or self.files[0]


def whole_files(names: Iterable[str]) -> list[list[str]]:
    """Return the GGUF files among the names. Parts of a split file are together and in order."""
    whole: dict[str, list[str]] = {}
    for name in sorted(names):
        if name.lower().endswith(".gguf") and not name.rpartition("/")[2].startswith("._"):
            part = PART_NAME.fullmatch(name)
            whole.setdefault(f"{part['prefix']}-of-{part['count']}" if part else name, []).append(name)
    return list(whole.values())
