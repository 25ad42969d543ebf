"""`thriftbit cache`: what Thriftbit keeps on this disk, its size, and what clearing it costs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from thriftbit.containers.atomic_file import PARTIAL_SUFFIX, abandoned_partials, clear_abandoned_partials
from thriftbit.containers.temporary_folder import PREFIX, clear_abandoned
from thriftbit.errors import ThriftbitError, UsageError, shown
from thriftbit.folders import cache_folder, data_folder
from thriftbit.library.artefacts import KINDS, remove


@dataclass(frozen=True)
class Kept:
    """One group of kept files. name: for `clear`. what: a sentence on what the group holds and what clearing it costs.
    is_yours: whether it took the user's own time, so that it is only cleared by name. paths: of existing files."""

    name: str
    what: str
    is_yours: bool
    paths: tuple[Path, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.lstat().st_size for path in self.paths for file in _files(path))


# name, what it is, whether it is cleared by name only, its paths below the cache
_GROUPS = (
    ("calibrations", "what calibration learned about models; made again when needed, in minutes to hours", False,
     ("calibration",)),
    ("maps", "what each tensor of a model loses in each format; made again by `thriftbit map`", False, ("map",)),
    ("tuning", "rounded matrices of unfinished runs; without them such a run starts again", False, ("tuning",)),
    ("headers", "what headers of models say, and hashes of weights; read again in seconds to minutes", False,
     ("library.json", "identities.json")),
    ("measurements", "your measurements, from which reports are made", True, ("measurements.jsonl",)),
    ("profile", "how fast this computer is; made again by `thriftbit doctor --measure`", True, ("machine",)),
)  # fmt: skip
_TEMPORARY = "what killed runs left behind, half-written files in this folder included"
_CONVERTER = "llama.cpp's converter, which you agreed to install; installed again when needed"
_OTHER = "files of another version of Thriftbit"


def kept() -> tuple[Kept, ...]:
    """Return all that Thriftbit keeps in the user's cache, and what it installed."""
    cache = cache_folder()
    known = [
        Kept(name, what, is_yours, tuple(path for each in below if (path := cache / each).exists()))
        for name, what, is_yours, below in _GROUPS
    ]
    left = sorted(
        path for path in _children(cache) if path.name not in {each for group in _GROUPS for each in group[3]}
    )
    temporary = tuple(path for path in left if path.name.startswith(PREFIX) or PARTIAL_SUFFIX in path.name)
    other = tuple(path for path in left if path not in temporary)
    temporary += tuple(abandoned_partials(Path.cwd()))
    converter = data_folder() / "converter"
    return tuple(
        each
        for each in (
            *known,
            Kept("temporary", _TEMPORARY, False, temporary),
            Kept("converter", _CONVERTER, True, (converter,) if converter.exists() else ()),
            Kept("other", _OTHER, True, other),
        )
        if each.paths
    )


def clear(name: str | None = None) -> tuple[Kept, ...]:
    """Remove a group, and return what was removed. Without a name, everything is removed that can be made again without
    the user. Raises UsageError for an unknown name, ThriftbitError for a file that cannot be removed."""
    groups = kept()
    if name is not None and name not in _names():
        raise UsageError(f"{shown(name)} is not one of the names here: {', '.join(_names())}")
    chosen = [group for group in groups if group.name == name or (name is None and not group.is_yours)]
    for group in chosen:
        if group.name == "temporary":  # a run may use one of these now; its lock tells
            clear_abandoned(cache_folder())
            for folder in (cache_folder(), Path.cwd()):
                clear_abandoned_partials(folder)
            continue
        for path in group.paths:
            if path.name in KINDS:  # a run may make one of these now; its lock tells
                for folder in path.iterdir():
                    if folder.is_dir() and not remove(folder):
                        raise ThriftbitError(f"{folder}: a run is using it now; end the run first")
            _remove(path)
    return tuple(chosen)


def _names() -> list[str]:
    return [*(group[0] for group in _GROUPS), "temporary", "converter", "other"]


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise ThriftbitError(f"{path}: cannot be removed: {error.strerror}") from None


def _children(folder: Path) -> Iterator[Path]:
    try:
        yield from folder.iterdir()
    except OSError:
        return


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir() and not path.is_symlink():
        yield from (file for file in path.rglob("*") if file.is_file() or file.is_symlink())
    else:
        yield path
