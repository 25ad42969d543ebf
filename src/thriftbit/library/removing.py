"""`thriftbit rm`: what is removed, how much disk that frees, and which models only their own program can remove safely.

Files of your own, of LM Studio and of llama.cpp are removed as files. In the Hub's cache a file is a link to content,
and the content is removed if no other link needs it. A folder of safetensors is removed only if it holds nothing but a
model. Ollama's store is left to Ollama: several of its models may share one file, and its server keeps track of
them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thriftbit.errors import ThriftbitError, UsageError, shown
from thriftbit.library.aliases import read_aliases, remove_alias
from thriftbit.library.candidate import Candidate
from thriftbit.library.disk_search import HUB_CACHE, every_name
from thriftbit.library.locate import locate
from thriftbit.library.ollama import PLACE as OLLAMA
from thriftbit.sources.hub import parse_hub_id

_MODEL_FILES = (".json", ".safetensors", ".txt", ".model", ".md", ".jinja", ".gguf", ".bin", ".tiktoken", ".py")
_MODEL_NAMES = (".cache", ".gitattributes", "LICENSE", "NOTICE", "USE_POLICY.md")


@dataclass(frozen=True)
class Removal:
    """name: of the model. paths: files, links and folders to remove, in this order. freed_bytes: disk space that
    becomes free. also_called: other names of the same content, which stay and keep its bytes. aliases: the user's
    aliases of it, which are removed, too."""

    name: str
    place: str
    paths: tuple[Path, ...]
    freed_bytes: int
    also_called: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    def run(self) -> None:
        """Remove everything. Raises ThriftbitError at the first path that cannot be removed; earlier ones are gone
        then."""
        for path in self.paths:
            try:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            except OSError as error:
                raise ThriftbitError(f"{path}: cannot be removed: {error.strerror}") from None
        for alias in self.aliases:
            remove_alias(alias)


def removal_of(name: str) -> Removal:
    """Return what removing a model means. Nothing is removed yet. name: whatever `locate` understands.

    Raises UsageError for a name of no model here, ThriftbitError for a model that Thriftbit does not remove."""
    candidate = _candidate(name)
    if candidate.place == OLLAMA:
        raise ThriftbitError(f"{candidate.name} belongs to Ollama, which removes it: ollama rm {candidate.name}")
    if candidate.place == HUB_CACHE:
        paths = _in_hub_cache(candidate)
    elif candidate.folder is not None:
        paths = (_whole_folder(candidate.folder),)
    else:
        paths = candidate.files
    gone = {str(path) for path in (*candidate.files, candidate.path)}
    return Removal(
        name=candidate.name,
        place=candidate.place,
        paths=paths,
        freed_bytes=_freed_bytes(paths),
        also_called=tuple(_other_names(candidate)),
        aliases=tuple(alias for alias, target in read_aliases().items() if target in gone),
    )


def _candidate(name: str) -> Candidate:
    names = every_name(Path.cwd())
    for candidate in names:
        if name in (candidate.name, *candidate.aliases):
            return candidate
    located = locate(name, to_run=True, offline=True)
    path = Path(located.source)
    if (hub_id := parse_hub_id(located.source)) and not path.exists():
        found = next((each for each in names if each.name == hub_id.repository and each.place == HUB_CACHE), None)
        if found is None:
            raise UsageError(f"{shown(name)} is not on this disk")
        return found
    for candidate in names:
        if candidate.path.absolute() == path.absolute() or path.absolute() in candidate.files:
            return candidate
    if not path.is_file() or path.suffix.lower() != ".gguf":
        raise UsageError(f"{path} is not a model that Thriftbit knows; remove it with your file manager")
    return Candidate(str(path), "its folder", (path.absolute(),))


def _in_hub_cache(candidate: Candidate) -> tuple[Path, ...]:
    """Return the paths to remove: the links of a GGUF and, if nothing else needs it, its content; for safetensors the
    whole repository."""
    repository = next(
        parent for parent in candidate.files[0].parents if parent.parent.name == "snapshots"
    ).parent.parent
    links = [path for path in repository.glob("snapshots/*/**/*") if path.is_symlink() or path.is_file()]
    wanted = {file.resolve() for file in candidate.files}
    going = [link for link in links if link.resolve() in wanted]
    staying = {link.resolve() for link in links if link not in going}
    weights = [link for link in links if link not in going and link.suffix in (".gguf", ".safetensors", ".bin")]
    if candidate.folder is not None or not weights:
        return (repository,)
    blobs = [blob for blob in sorted(wanted) if blob not in going and blob not in staying]
    return (*going, *blobs)


def _whole_folder(folder: Path) -> Path:
    """Return the folder. Raises ThriftbitError if it holds more than a model, or is the current folder."""
    if folder.is_symlink():
        return folder
    other = [entry.name for entry in folder.iterdir() if not _is_of_model(entry)]
    if other:
        raise ThriftbitError(
            f"{folder} holds more than a model ({', '.join(sorted(other)[:3])}); remove the folder yourself"
        )
    if folder.resolve() in (Path.cwd(), *Path.cwd().parents, Path.home()):
        raise ThriftbitError(f"{folder} is the current folder; change to another one first")
    return folder


def _is_of_model(entry: Path) -> bool:
    return entry.name in _MODEL_NAMES or (not entry.is_dir() and entry.suffix.lower() in _MODEL_FILES)


def _freed_bytes(paths: Sequence[Path]) -> int:
    """Return the bytes of disk that removing these paths frees. Content with another hard link stays, and so does the
    target of a symbolic link."""
    states = [file.lstat() for path in paths for file in _files(path)]
    going: dict[tuple[int, int], int] = {}
    for state in states:
        going[state.st_dev, state.st_ino] = going.get((state.st_dev, state.st_ino), 0) + 1
    sizes = {(state.st_dev, state.st_ino): (state.st_size, state.st_nlink) for state in states}
    return sum(size for key, (size, links) in sizes.items() if links <= going[key])


def _files(path: Path) -> list[Path]:
    if path.is_symlink() or not path.is_dir():
        return [path] if path.is_symlink() or path.exists() else []
    return [Path(root, name) for root, _, names in os.walk(path) for name in names]


def _other_names(candidate: Candidate) -> list[str]:
    """Return the names in other places of the same file."""
    if candidate.folder is not None:
        return []
    first = candidate.files[0]
    return [
        f"{other.name} ({other.place})"
        for other in every_name(Path.cwd())
        if other.files[0] != first and other.folder is None and _same(other.files[0], first)
    ]


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
