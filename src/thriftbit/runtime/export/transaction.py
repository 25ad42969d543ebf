"""Putting files where another program looks for them, without copying where that can be avoided, and all or nothing.

Three ways, the first that the file system allows:

- a reflink (Linux's FICLONE, on btrfs, XFS, bcachefs): another file that shares its blocks until either is changed;
- a hard link: a second name of the same file. Removing either name leaves the other. A program that rewrites the file
  in place would change both; Ollama, LM Studio and llama.cpp never do, nor does Thriftbit;
- a copy, announced with its size and the reason, before its first byte.

Symbolic links are not used: the program would lose its model when the file is moved. copy_file_range is not either: it
does not say whether it shared the blocks. Left out: clonefile of macOS, where hard links do as well.

Each step leaves behind how to take it back, and an error, Ctrl-C or a closed terminal takes all of them back. The last
step, which makes the model known to the program, is one rename.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from thriftbit.containers.atomic_file import PARTIAL_SUFFIX, AtomicFile
from thriftbit.containers.stopping import stop_signals_raise
from thriftbit.errors import ThriftbitError
from thriftbit.progress import Progress
from thriftbit.sizes import describe_bytes

_logger = logging.getLogger(__name__)

REFLINK, HARD_LINK, COPY, THERE_ALREADY, WRITTEN = "reflink", "hard link", "copy", "there already", "written"
SHARED = (REFLINK, HARD_LINK, THERE_ALREADY)
CHUNK_BYTES = 8 << 20

_REPLACED_SUFFIX = ".thriftbit-replaced"
_FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)


@dataclass(frozen=True)
class Placed:
    """A file of the program's. way: REFLINK, HARD_LINK, COPY, THERE_ALREADY, or WRITTEN for what we composed."""

    path: Path
    size_bytes: int
    way: str


class Transaction:
    """Context manager: what is placed in it stays if its block ends well, and is taken back if it raises."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._undo = ExitStack()
        self._signals = ExitStack()
        self._superseded: list[Path] = []

    def __enter__(self) -> Self:
        self._signals.enter_context(stop_signals_raise())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._signals:
            if kind is not None:
                self._undo.close()
                return
            self._undo.pop_all()
            for path in self._superseded:
                with suppress(OSError):
                    path.unlink()

    def folder(self, path: Path) -> None:
        """Make it and those above it, if they are missing."""
        missing = [each for each in (path, *path.parents) if not each.exists()]
        try:
            for each in reversed(missing):
                each.mkdir(exist_ok=True)
                self._undo.callback(_forgiving(each.rmdir))
        except OSError as error:
            raise not_writable(path, error) from None

    def place(self, source: Path, target: Path, *, replace: bool = False) -> Placed:
        """The content of `source` at `target`, whose folder exists. replace: what is there may go."""
        size_bytes = source.stat().st_size
        if target.exists() and target.samefile(source):
            return Placed(target, size_bytes, THERE_ALREADY)
        if replace:
            self._set_aside(target)
        if not os.path.lexists(target):
            self._undo.callback(_forgiving(target.unlink))
        try:
            way = _share(source, target)
        except FileExistsError:
            raise ThriftbitError(f"{target}: exists already; use --force to replace it") from None
        except OSError as error:
            _logger.info(f"Copying {describe_bytes(size_bytes)} to {target.parent}: {_why_not_shared(error)}.")
            self._copy(source, target, size_bytes)
            way = COPY
        return Placed(target, size_bytes, way)

    def write(self, target: Path, content: bytes, *, replace: bool = False) -> Placed:
        """A small file of our own at `target`, at once. replace: what is there may go."""
        if replace and target.is_file():
            self._undo.callback(_forgiving(partial(_write, target, target.read_bytes())))
        elif not os.path.lexists(target):
            self._undo.callback(_forgiving(target.unlink))
        _write(target, content, replace)
        return Placed(target, len(content), WRITTEN)

    def _copy(self, source: Path, target: Path, size_bytes: int) -> None:
        done_bytes = 0
        try:
            with source.open("rb", buffering=0) as reading, AtomicFile(target, size_bytes) as writing:
                while chunk := reading.read(CHUNK_BYTES):
                    done_bytes += len(chunk)
                    if done_bytes > size_bytes:
                        break
                    writing.write(chunk)
                    self._progress(f"copying {source.name}", done_bytes / size_bytes)
                if done_bytes != size_bytes:
                    raise ThriftbitError(
                        f"{source}: its size changed while it was copied; try again when it is complete"
                    )
        except OSError as error:
            raise ThriftbitError(f"{source}: cannot be read: {error.strerror}") from error

    def _set_aside(self, target: Path) -> None:
        """Out of the way, to come back if the rest fails"""
        if not os.path.lexists(target):
            return
        if target.is_dir():
            raise ThriftbitError(f"{target} is a folder, and a file should be there; move it out of the way first")
        aside = target.with_name(target.name + _REPLACED_SUFFIX)

        def bring_back() -> None:
            if os.path.lexists(aside):
                aside.replace(target)

        self._undo.callback(bring_back)
        try:
            target.replace(aside)
        except OSError as error:
            raise not_writable(target, error) from None
        self._superseded.append(aside)


@dataclass(frozen=True)
class Destination:
    """How a program will know the model. name: what it calls it. folder: where that program keeps models. marker: the
    file that makes the model known, or the first of its weights. command: runs it. notes: sentences on what else there
    is to know. details: what was composed for the program, for --json."""

    name: str
    folder: Path
    marker: Path
    command: str
    notes: tuple[str, ...]
    details: dict[str, Any]


class Target(Protocol):
    """A program, and a model that is to be handed to it. Made without changing anything; ThriftbitError then already
    for whatever is known to fail: a model that the program cannot load, a name that it would not take."""

    program: str
    destination: Destination

    def taken(self) -> Sequence[Path]:
        """Return files that are there already and would have to go."""
        ...

    def register(self, transaction: Transaction, replace: bool) -> list[Placed]:
        """Put everything in its place; what makes it known to the program last. replace: what is there may go."""
        ...


def check_writable(folder: Path) -> None:
    """ThriftbitError if the folder, or what there is of those above it, is none or may not be written"""
    nearest = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    if not nearest.is_dir():
        raise ThriftbitError(f"{nearest} is no folder, so nothing can be put below it; name another one with --folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise not_writable(nearest, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def expected_way(source: Path, folder: Path) -> str:
    """Return what `place` will probably do, without trying: REFLINK or HARD_LINK are told apart only by trying."""
    nearest = next(each for each in (folder, *folder.parents) if each.exists())
    return HARD_LINK if source.stat().st_dev == nearest.stat().st_dev else COPY


def not_writable(path: Path, error: OSError) -> ThriftbitError:
    return ThriftbitError(
        f"{path}: cannot be written: {error.strerror}. If the folder belongs to another user, name one that program "
        "and you may both use with --folder, or run this as that user"
    )


def _write(target: Path, content: bytes, replace: bool = True) -> None:
    with AtomicFile(target, len(content), force=replace) as file:
        file.write(content)


def _share(source: Path, target: Path) -> str:
    """Return REFLINK or HARD_LINK; OSError if neither is possible,
    FileExistsError if there is something at `target`."""
    if sys.platform == "linux" and _reflink(source, target):
        return REFLINK
    os.link(source, target)
    return HARD_LINK


def _reflink(source: Path, target: Path) -> bool:
    """Return whether the file system could; then the new file is at `target`, and was there whole or not at all."""
    import fcntl

    unfinished = target.with_name(f"{target.name}{PARTIAL_SUFFIX}-{os.getpid()}")
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    try:
        with source.open("rb") as reading, unfinished.open("xb") as writing:
            fcntl.ioctl(writing.fileno(), _FICLONE, reading.fileno())
            os.fsync(writing.fileno())
        unfinished.rename(target)
    except OSError:
        return False
    finally:
        with suppress(OSError):
            unfinished.unlink()
    return True


def _why_not_shared(error: OSError) -> str:
    if error.errno == errno.EXDEV:
        return "it is on another disk than the file"
    if error.errno in (errno.EPERM, errno.EACCES):
        return "the system does not let the file be linked there"
    return f"the file cannot be shared there ({error.strerror})"


def _forgiving(act: Callable[[], Any]) -> Callable[[], None]:
    """Return the act, which may find that there is nothing to take back."""

    def attempt() -> None:
        with suppress(OSError, ThriftbitError):
            act()

    return attempt
