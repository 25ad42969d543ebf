"""Where models are on this computer, and which files make one model. Nothing is opened here.

Programs that keep models have layouts of their own: the Hub's cache links names to content (models--owner--name/
snapshots/COMMIT), Ollama names content by its hash (`ollama.py`), LM Studio and llama.cpp keep plain files. Folders of
your own are named in config.toml (`machine/configuration.py`), and are searched to the bottom. The current folder is
searched to a small depth only, because it may be the root of a disk. A file with several names (hard or symbolic links)
is one model: the name in the folder that is searched first is its name, the others are its aliases."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from thriftbit.errors import ThriftbitError
from thriftbit.library.candidate import Candidate, whole_files
from thriftbit.library.ollama import PLACE as OLLAMA
from thriftbit.library.ollama import ollama_candidates
from thriftbit.machine.configuration import configuration_file, own_folders
from thriftbit.machine.model_folders import model_folders, shown_path
from thriftbit.sources.checkpoint import CONFIG, is_pickle
from thriftbit.sources.hub import CACHE_FOLDER

HUB_CACHE, LM_STUDIO, LLAMA_CPP = "Hugging Face", "LM Studio", "llama.cpp"
OWN_FOLDER, CURRENT = "own folder", "this folder"
PROGRAMS = (HUB_CACHE, OLLAMA, LM_STUDIO, LLAMA_CPP)
_CURRENT_DEPTH, _DEEPEST = 4, 40
_FOLDER_LIMIT = 5_000  # folders below the current one: more than any project has, searched in a second
_NOT_ENTERED = {"node_modules", "site-packages", "__pycache__", "proc", "sys", "dev"}
_SHA256 = re.compile(r"[0-9a-f]{64}")

Warn = Callable[[str], None]
Identity = tuple[int, int] | Path


def candidates(current: Path, warn: Warn) -> list[Candidate]:
    """Return everything on this disk that may be a model, each file once, the current folder's first.

    warn: is called with a sentence on each folder that could not be searched."""
    found: dict[Identity, Candidate] = {}
    for candidate in _all(current, warn):
        identity = _identity(candidate.files[0])
        known = found.get(identity)
        found[identity] = candidate if known is None else _with_alias(known, candidate)
    return list(found.values())


def every_name(current: Path) -> list[Candidate]:
    """Return the same, but each name of a file on its own."""
    return list(_all(current, lambda message: None))


def from_here(path: Path) -> str:
    """Return the path as it is written from the current folder."""
    try:
        relative = str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
    return f"./{relative}" if relative.startswith("-") else relative


def _with_alias(known: Candidate, other: Candidate) -> Candidate:
    names = (other.name, *other.aliases)
    aliases = dict.fromkeys((*known.aliases, *(name for name in names if name != known.name)))
    return replace(known, aliases=tuple(aliases), sha256=known.sha256 or other.sha256)


def _all(current: Path, warn: Warn) -> Iterator[Candidate]:
    """Yield everything that may be a model, in the places nearest to the user first."""
    yield from _walk(current, CURRENT, warn, depth=_CURRENT_DEPTH, limit=_FOLDER_LIMIT)
    try:
        folders = own_folders(configuration_file())
    except ThriftbitError as error:
        warn(str(error))
        folders = []
    for folder in folders:
        if folder.is_dir():
            yield from _walk(folder, OWN_FOLDER, warn, prefix=shown_path(folder, Path.home(), str(folder)))
        else:
            warn(f"{folder}, named in {configuration_file()}, is not a folder.")
    for place in model_folders():
        if place.name == HUB_CACHE:
            yield from _hub_candidates(place.path, warn)
        elif place.name == OLLAMA:
            yield from ollama_candidates(place.path)
        elif place.name in PROGRAMS:
            yield from _walk(place.path, place.name, warn)


def _hub_candidates(cache: Path, warn: Warn) -> Iterator[Candidate]:
    for repository in _children(cache, warn):
        name = CACHE_FOLDER.fullmatch(repository.name)
        if name is None:
            continue
        snapshots = [path for path in _children(repository / "snapshots", warn) if path.is_dir()]
        snapshots.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for snapshot in snapshots:
            yield from _walk(snapshot, HUB_CACHE, warn, prefix=f"{name['owner']}/{name['name']}")


def _walk(
    root: Path, place: str, warn: Warn, prefix: str = "", depth: int = _DEEPEST, limit: int | None = None
) -> Iterator[Candidate]:
    """Yield everything below a folder that may be a model.

    prefix: begins each name, before the path of the file. depth: of folders to search. limit: the most folders."""
    left, entered = [(root, 0)], set()
    while left:
        folder, level = left.pop()
        identity = _identity(folder)
        if identity in entered:  # a link to a folder that was entered already
            continue
        entered.add(identity)
        if limit is not None and len(entered) > limit:
            warn(f"{root} has more than {limit:,} folders; the rest was not searched. Name it in config.toml.")
            return
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            warn(f"{folder}: cannot be read: {error.strerror}")
            continue
        relative = folder.relative_to(root).as_posix()
        shown = "/".join(part for part in (prefix.rstrip("/"), relative if relative != "." else "") if part)
        yield from _in_folder(folder, [entry.name for entry in entries if not _is_folder(entry)], shown, place)
        if level < depth:
            inside = [entry for entry in entries if _is_folder(entry) and _is_entered(entry.name)]
            left += [(folder / entry.name, level + 1) for entry in reversed(inside)]


def _in_folder(folder: Path, names: list[str], shown: str, place: str) -> Iterator[Candidate]:
    """Yield the models among the files of one folder. names: of its files. shown: the folder, as names begin with
    it."""
    for parts in whole_files(names):
        files = tuple(folder / part for part in parts)
        named = f"{shown}/{parts[0]}" if shown else parts[0]
        yield Candidate(named, place, files, sha256=_hash_in_cache(files))
    weights = [name for name in names if name.endswith(".safetensors") and not name.startswith("._")]
    if CONFIG in names and weights:
        files = tuple(folder / name for name in (CONFIG, *weights))
        yield Candidate(shown or str(folder), place, files, folder=folder)
    elif CONFIG in names and any(is_pickle(name) for name in names):
        problem = (
            "its weights are stored as pickle, which Thriftbit does not open: loading one runs any code that is in it"
        )
        yield Candidate(shown or str(folder), place, (folder / CONFIG,), folder=folder, problem=problem)


def _hash_in_cache(files: tuple[Path, ...]) -> str | None:
    """Return the SHA-256 that the Hub's cache uses as the name of a file's content."""
    if len(files) > 1 or not files[0].is_symlink():
        return None
    target = files[0].readlink().name
    return target if _SHA256.fullmatch(target) else None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_entered(name: str) -> bool:
    return not name.startswith(".") and name not in _NOT_ENTERED


def _children(folder: Path, warn: Warn) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        warn(f"{folder}: cannot be read: {error.strerror}")
        return []


def _identity(path: Path) -> Identity:
    """Return what identifies the content of a path: the same for every link to a file."""
    try:
        state = path.stat()
    except OSError:
        return path.absolute()
    return (state.st_dev, state.st_ino) if state.st_ino and stat.S_IFMT(state.st_mode) else path.absolute()
