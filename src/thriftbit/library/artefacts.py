"""Artefacts: results that were computed of a model and are kept in the user's cache (calibrations, maps, rounded
matrices).

The problem: an artefact is gigabytes and hours of work. An artefact of another model, text or version must never be
used in its place. Two runs must not write into the same one. A damaged one must not be a dead end. The cache must not
fill the disk. The choice: an artefact is a folder named by a hash of everything its bytes depend on. The same facts are
in the folder, and are compared when it is opened. A run that makes an artefact holds a lock; a second run waits for it
and then uses the result. Before an artefact is made, there has to be space for it, and the least recently used
artefacts are removed until the cache is within its limit.

By default, all artefacts together take at most twice the size of the largest model that any of them is made of."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import time
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from thriftbit.containers.atomic_file import PRIVATE_MODE, free_bytes_for
from thriftbit.containers.regular_files import read_regular
from thriftbit.errors import ThriftbitError
from thriftbit.folders import cache_folder
from thriftbit.machine.private_files import private_folder, write_private
from thriftbit.sizes import describe_bytes
from thriftbit.sources.model import Model

_logger = logging.getLogger(__name__)

CALIBRATION, ROUNDED, MAP = "calibration", "tuning", "map"
KINDS = (CALIBRATION, ROUNDED, MAP)
INDEX = "made-of.json"
MODELS_AT_MOST = 2  # the default limit, in sizes of the largest model
_LARGEST_INDEX_BYTES = 16 << 20
_LOCK_SUFFIX = ".lock"
DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)
"""The exceptions that numpy raises for a damaged file of arrays. zipfile raises NotImplementedError for an unknown
compression."""


@dataclass(frozen=True)
class MadeOf:
    """What an artefact depends on.

    kind: one of KINDS. model: the model's identity. facts: plain JSON with everything else that changes a byte: text,
    formats, method and its version. source: the model's name, for people. model_bytes: for the limit of the cache. The
    last two are not part of the key."""

    kind: str
    model: str
    facts: Mapping[str, Any]
    source: str = field(default="", compare=False)
    model_bytes: int = field(default=0, compare=False)

    @property
    def key(self) -> str:
        """The artefact's name: 32 hexadecimal digits."""
        identity = json.dumps([self.kind, self.model, self.facts], sort_keys=True)
        return hashlib.sha256(identity.encode()).hexdigest()[:32]

    @property
    def folder(self) -> Path:
        """Return where the user's cache keeps it."""
        return cache_folder() / self.kind / self.key

    def check_model(self, model: Model, what: str) -> None:
        """Raise ThriftbitError if the artefact is of another model. what: begins the error: "the calibration in
        FOLDER"."""
        if self.model != model.identity:
            raise ThriftbitError(f"{what} is of another model ({self.source}), not of {model.source}; make one of it")

    def write(self, folder: Path) -> None:
        document = {
            "kind": self.kind,
            "model": self.model,
            "facts": self.facts,
            "source": self.source,
            "model_bytes": self.model_bytes,
        }
        write_private(folder / INDEX, json.dumps(document).encode())


def made_of(kind: str, model: Model, **facts: Any) -> MadeOf:
    return MadeOf(kind, model.identity, facts, model.source, model.size_bytes)


def read_made_of(folder: Path) -> MadeOf | None:
    """Return what the artefact in the folder says it is made of; None if it says nothing that can be read."""
    try:
        document = json.loads(read_regular(folder / INDEX, _LARGEST_INDEX_BYTES))
        found = MadeOf(
            str(document["kind"]),
            str(document["model"]),
            dict(document["facts"]),
            str(document["source"]),
            int(document["model_bytes"]),
        )
    except (ThriftbitError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return found


@contextmanager
def locked(folder: Path, doing: str) -> Iterator[None]:
    """In this context, no other run makes the artefact in `folder`. doing: "calibrating MODEL", for the message to a
    user who has to wait for another run."""
    private_folder(folder.parent)
    lock = FileLock(folder.with_name(folder.name + _LOCK_SUFFIX), mode=PRIVATE_MODE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _logger.info(f"Another run is {doing} in the same way; waiting for its result")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def used(folder: Path) -> None:
    """Note that the artefact was used now, so that others are removed before it."""
    with suppress(OSError):
        os.utime(folder)


@dataclass(frozen=True)
class Artefact:
    """An artefact in the cache. finished: whether it is complete. last_used: seconds since 1970."""

    folder: Path
    made_of: MadeOf | None
    size_bytes: int
    last_used: float


def artefacts() -> list[Artefact]:
    """Return all artefacts in the user's cache, the least recently used first."""
    folders = [path for kind in KINDS for path in _children(cache_folder() / kind) if path.is_dir()]
    found = [Artefact(folder, read_made_of(folder), _size_bytes(folder), _time(folder)) for folder in folders]
    return sorted(found, key=lambda artefact: (artefact.last_used, artefact.folder))


def make_room(
    made: MadeOf,
    kept_bytes: int,
    *,
    scratch_bytes: int = 0,
    limit_bytes: int | None = None,
    place: Path | None = None,
    staying: Collection[Path] = (),
) -> None:
    """Remove the least recently used artefacts until a new one is within the limit.

    kept_bytes: the approximate size of the new one. scratch_bytes: further bytes that making it takes for a while.
    limit_bytes: of all artefacts together; None means MODELS_AT_MOST times the largest model. place: the folder of the
    new one, if not in the cache. staying: folders that are in use.
    Raises ThriftbitError if the disk has no space for the new one."""
    kept = [artefact for artefact in artefacts() if artefact.folder != made.folder]
    model_bytes = max([made.model_bytes, *(a.made_of.model_bytes for a in kept if a.made_of)])
    limit = MODELS_AT_MOST * model_bytes if limit_bytes is None else limit_bytes
    used_bytes = sum(artefact.size_bytes for artefact in kept if artefact.folder in staying)
    trim(max(0, limit - kept_bytes - used_bytes), staying=(made.folder, *staying))
    folder, needed_bytes = place or made.folder, kept_bytes + scratch_bytes
    free, there = free_bytes_for(folder), _size_bytes(folder)
    if free + there < needed_bytes:
        raise ThriftbitError(
            f"{folder}: about {describe_bytes(needed_bytes)} are needed there, and its disk has "
            f"{describe_bytes(free)} free. Free some, or set THRIFTBIT_CACHE to a folder on another disk"
        )


def trim(limit_bytes: int, staying: Collection[Path] = ()) -> list[Artefact]:
    """Remove the least recently used artefacts until the others take `limit_bytes` at most, and return the removed
    ones. Artefacts that a run uses now stay. Folders in `staying` stay, too, and are not counted."""
    kept = [artefact for artefact in artefacts() if artefact.folder not in staying]
    total = sum(artefact.size_bytes for artefact in kept)
    gone = []
    for artefact in kept:
        if total <= limit_bytes:
            break
        if remove(artefact.folder):
            total -= artefact.size_bytes
            gone.append(artefact)
    return gone


def remove(folder: Path) -> bool:
    """Remove the artefact. Return whether it is gone: False if a run uses it now."""
    lock = FileLock(folder.with_name(folder.name + _LOCK_SUFFIX), mode=PRIVATE_MODE)
    try:
        with lock.acquire(timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
    except (Timeout, OSError):
        return False
    return not folder.exists()


@contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """In this context, errors of the disk become ThriftbitErrors that say what to do. Finished parts stay, and the next
    run continues with them."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ThriftbitError(
                f"{folder}: the disk is full. What is finished is kept there, and the same command goes on with it: "
                "free some space, or `thriftbit cache clear`"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise ThriftbitError(f"{folder}: cannot be written: {error.strerror}") from error
        raise


def _size_bytes(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += Path(parent, name).lstat().st_size
    return total


def _time(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return time.time()


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
