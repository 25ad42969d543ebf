"""An output file that appears whole or not at all.

The file is written beside its final name, as NAME.thriftbit-partial, flushed to the disk, then renamed. An exception,
Ctrl-C, a closed terminal or a full disk removes the partial file. Only a killed process or a power cut leaves one, and
the next run that writes any file into the same folder removes it. `thriftbit cache` and `ls` show one in the current
folder. A lock, which the system takes back when its owner ends, tells an abandoned partial file from one that another
run is writing.

Hours of work are never thrown away for a name: if somebody else's file appeared under the name meanwhile, the result
gets a free name beside it, and a warning says so.

The system gets the content in large pieces, at multiples of their size, and keeps them in memory as they came. A model
written in small pieces lies in small pages of memory. Until it is read from the disk again, llama.cpp runs such a model
up to a third slower (`docs/lab-notes.md`).

Left out: reserving the space beforehand. It would catch a disk that fills up meanwhile. But where a file system cannot
reserve space, the C library writes zeros, and the file crosses a network twice.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from thriftbit.containers.file_lock import is_at, lock
from thriftbit.containers.stopping import signals_wait, stop_signals_raise
from thriftbit.errors import ThriftbitError
from thriftbit.sizes import describe_bytes

PARTIAL_SUFFIX = ".thriftbit-partial"
PIECE_BYTES = 4 << 20
PRIVATE_MODE = 0o600
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_log = logging.getLogger(__name__)


def check_target(path: Path, target: Path, force: bool) -> None:
    """Raises ThriftbitError if `path`, which leads to `target`, cannot be written, or may not because it exists."""
    _folder_of(path)
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise ThriftbitError(f"{path}: is {kind}; name a file to be written")
    if not force:
        raise ThriftbitError(f"{path}: exists already; use --force to replace it, or choose another name")


class AtomicFile:
    """Context manager: `write` inside it; at its end the file gets its name, or is gone if the block raised.

    path: followed if it is a symbolic link; after the end, where the file is. size_bytes: how much will be written,
    checked against the free space first. force: replace a file. private: only the user may read the file.
    Entering raises ThriftbitError if there is something at `path` (unless a file and `force`), if its folder is missing
    or cannot be written, if the disk is too small, or if another run is writing the same file.
    """

    def __init__(self, path: str | Path, size_bytes: int, *, force: bool = False, private: bool = False) -> None:
        self.path = Path(path)
        self._target = Path(os.path.realpath(path))
        self._partial = Path(f"{self._target}{PARTIAL_SUFFIX}")
        self._size_bytes = size_bytes
        self._force = force
        self._mode = PRIVATE_MODE if private else 0o666
        self._waiting = bytearray()  # less than PIECE_BYTES
        self._written_bytes = 0
        self._published = False

    def __enter__(self) -> Self:
        with ExitStack() as undo, self._explained():
            self._check_target()
            undo.enter_context(stop_signals_raise())
            with signals_wait():
                self._file = _claim(self._partial, self._mode)
                undo.callback(self._discard)
            clear_abandoned_partials(self._target.parent)  # before the free space is looked at
            self._check_free_space()
            self._undo = undo.pop_all()
        return self

    def write(self, content: bytes | memoryview) -> None:
        left = memoryview(content)
        while left:
            room = PIECE_BYTES - len(self._waiting)
            self._waiting += left[:room]
            left = left[room:]
            if len(self._waiting) == PIECE_BYTES:
                self._pass_on()

    def _pass_on(self) -> None:
        """What waits, to the system"""
        with self._explained(), memoryview(self._waiting) as waiting:
            start = 0
            while start < len(waiting):
                count = self._file.write(waiting[start:])
                self._written_bytes += count
                start += count
        self._waiting.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._undo, self._explained():
            if kind is None:
                self._publish()

    def _check_target(self) -> None:
        check_target(self.path, self._target, self._force)

    def _check_free_space(self) -> None:
        free_bytes = free_bytes_for(self.path)
        if free_bytes < self._size_bytes:
            raise ThriftbitError(
                f"{self.path}: needs {describe_bytes(self._size_bytes)}, and its disk has {describe_bytes(free_bytes)} "
                f"free; {describe_bytes(self._size_bytes - free_bytes)} are missing. Free some, or choose another place"
            )

    def _publish(self) -> None:
        self._pass_on()
        if self._written_bytes != self._size_bytes:
            raise ValueError(f"{self.path}: {self._written_bytes} bytes were written, not {self._size_bytes}")
        os.fsync(self._file.fileno())
        self._step_aside()
        self._close_on_windows()
        self._partial.replace(self._target)
        self._published = True

    def _step_aside(self) -> None:
        """Takes a free name if something appeared at the target since the beginning and may not be replaced"""
        try:
            self._check_target()
        except ThriftbitError:
            taken = self.path
            self._target = _free_name(self._target)
            self.path = taken.with_name(self._target.name)
            _log.warning("%s appeared while this was written, and stays: the result is in %s", taken, self.path)

    def _discard(self) -> None:
        with signals_wait():
            self._close_on_windows()
            if not self._published:
                with suppress(OSError):
                    self._partial.unlink()
            self._file.close()

    def _close_on_windows(self) -> None:
        """There, only closed files can be renamed or removed; elsewhere, the lock is kept until that is done."""
        if sys.platform == "win32":
            self._file.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of the operating system, as the user can mend them"""
        try:
            yield
        except OSError as error:
            if error.errno in FULL_DISK:
                raise ThriftbitError(
                    f"{self.path}: the disk is full after {describe_bytes(self._written_bytes)} of "
                    f"{describe_bytes(self._size_bytes)}; nothing was kept. Free some space or choose another place"
                ) from error
            raise ThriftbitError(f"{self.path}: cannot be written: {error.strerror}") from error


def abandoned_partials(folder: Path) -> list[Path]:
    """Return the partial files in a folder that no run is writing any more, as far as that can be told."""
    return [path for path in sorted(folder.glob(f"*{PARTIAL_SUFFIX}")) if _if_abandoned(path, lambda: None)]


def clear_abandoned_partials(folder: Path) -> None:
    """Remove the partial files in a folder that no run is writing any more. Other users' files stay."""
    for path in folder.glob(f"*{PARTIAL_SUFFIX}"):
        _if_abandoned(path, path.unlink)


def free_bytes_for(path: Path) -> int:
    """Return how much a file at `path` may take on its disk, whose folder may still have to be made."""
    folder = Path(os.path.realpath(path)).parent
    return shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.is_dir())).free


@contextmanager
def folder_for(path: Path) -> Iterator[None]:
    """Make the folders in which `path` is to be; where the work inside fails, they are gone again."""
    folder = Path(os.path.realpath(path)).parent
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ThriftbitError(f"{folder}: cannot be made: {error.strerror}") from None
    try:
        yield
    except BaseException:
        for each in missing:
            with suppress(OSError):  # something is in it
                each.rmdir()
        raise


def _folder_of(path: Path) -> Path:
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise ThriftbitError(f"{path}: there is no folder {folder}; create it first")
    return folder


def _free_name(taken: Path) -> Path:
    """Return "model-2.gguf" for "model.gguf", or the same with the first higher number that is free."""
    names = (taken.with_name(f"{taken.stem}-{number}{taken.suffix}") for number in itertools.count(2))
    return next(path for path in names if not os.path.lexists(path))


def _if_abandoned(partial: Path, act: Callable[[], None]) -> bool:
    """Return whether nobody is writing the file, and then `act` while it is locked; False where there are no locks."""
    flags = os.O_RDWR | sum(getattr(os, name, 0) for name in ("O_BINARY", "O_NOFOLLOW", "O_NONBLOCK"))
    try:
        if not stat.S_ISREG(partial.lstat().st_mode):
            return False
        with FileIO(os.open(partial, flags), "r+") as file:
            state = os.fstat(file.fileno())
            if hasattr(os, "geteuid") and state.st_uid != os.geteuid():
                return False
            if not (lock(file) and is_at(file, partial)):
                return False
            if sys.platform == "win32":
                file.close()
            act()
            return True
    except OSError:  # BlockingIOError: another run is writing it
        return False


def _claim(partial: Path, mode: int) -> FileIO:
    """Return the file, empty and locked, whether an earlier run abandoned it or it is new; mode: of a new file."""
    # not blocking, as there could be a pipe
    wanted = ("O_BINARY", "O_NOFOLLOW", "O_NONBLOCK")
    flags = os.O_RDWR | os.O_CREAT | sum(getattr(os, name, 0) for name in wanted)
    while True:
        file = FileIO(os.open(partial, flags, mode), "w")
        try:
            lock(file)
            if is_at(file, partial):
                file.truncate(0)
                if mode == PRIVATE_MODE and os.name != "nt":
                    os.fchmod(file.fileno(), mode)
                return file
        except BlockingIOError:
            file.close()
            raise ThriftbitError(f"{partial}: another run is writing this file; wait for it or stop it") from None
        except BaseException:
            file.close()
            raise
        file.close()  # whoever held the lock renamed or removed the file after we had opened it
