"""An output file that appears whole or not at all.

It is written beside its final name, as NAME.thriftbit-partial, flushed to the disk, then renamed. Whatever goes wrong
in between (an exception, Ctrl-C, a closed terminal, a full disk) removes it. Only a killed process or a power cut
leaves one, and the next run for the same output takes it over: a lock on the file, which dies with its owner, tells an
abandoned one from one that another run is writing.

What is written goes to the system in large pieces at multiples of their size. It keeps them in memory as they came: a
model written in small pieces lies in small pages there, and until it is read from the disk again, llama.cpp
runs it up to a third slower (`docs/lab-notes.md`).

Left out: reserving the space beforehand. It would catch a disk that fills up meanwhile, but where a file system cannot
reserve, the C library writes zeros instead and the file crosses a network twice.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from thriftbit.errors import ThriftbitError
from thriftbit.sizes import describe_bytes

PARTIAL_SUFFIX = ".thriftbit-partial"
STOP_SIGNALS = ("SIGTERM", "SIGHUP", "SIGBREAK")  # beside SIGINT, which Python raises as KeyboardInterrupt
PIECE_BYTES = 4 << 20
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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

    path: followed if it is a symbolic link. size_bytes: what will be written, held against the free space first.
    Entering raises ThriftbitError if there is something at `path` (unless a file and `force`), if its folder is missing
    or cannot be written, if the disk is too small, or if another run is writing the same file.
    """

    def __init__(self, path: str | Path, size_bytes: int, *, force: bool = False) -> None:
        self.path = Path(path)
        self._target = Path(os.path.realpath(path))
        self._partial = Path(f"{self._target}{PARTIAL_SUFFIX}")
        self._size_bytes = size_bytes
        self._force = force
        self._waiting = bytearray()  # less than PIECE_BYTES
        self._written_bytes = 0
        self._published = False

    def __enter__(self) -> Self:
        with ExitStack() as undo, self._explained():
            self._check_target()
            undo.enter_context(stop_signals_raise())
            self._file = _claim(self._partial)
            undo.callback(self._discard)
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
        self._check_target()  # it may have appeared since
        self._close_on_windows()
        self._partial.replace(self._target)
        self._published = True

    def _discard(self) -> None:
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


def free_bytes_for(path: Path) -> int:
    """-> how much a file at `path` may take on its disk; ThriftbitError if its folder is missing"""
    return shutil.disk_usage(_folder_of(path)).free


def _folder_of(path: Path) -> Path:
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise ThriftbitError(f"{path}: there is no folder {folder}; create it first")
    return folder


def _claim(partial: Path) -> FileIO:
    """-> the file, empty and locked, whether an earlier run abandoned it or it is new"""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    while True:
        file = FileIO(os.open(partial, flags, 0o666), "w")
        try:
            _lock(file)
            if _is_at(file, partial):
                file.truncate(0)
                return file
        except BlockingIOError:
            file.close()
            raise ThriftbitError(f"{partial}: another run is writing this file; wait for it or stop it") from None
        except BaseException:
            file.close()
            raise
        file.close()  # whoever held the lock renamed or removed the file after we had opened it


def _lock(file: FileIO) -> None:
    """BlockingIOError if somebody else holds the lock"""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError from error
    else:
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            return  # a file system without locks: two runs for one output go unnoticed there


def _is_at(file: FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def stop_signals_raise() -> Iterator[None]:
    """Signals that would end the process on the spot raise SystemExit instead, so that files get cleaned up.

    Only where nobody else has taken them over, and only in the main thread, where Python allows it.
    """
    replaced = []
    try:
        if threading.current_thread() is threading.main_thread():
            for name in STOP_SIGNALS:
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                    replaced.append(number)
                    signal.signal(number, _exit)
        yield
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
