"""Every temporary folder of the program, and the removal of those that a killed run left behind.

A temporary folder may hold a whole model, so it must not outlive its purpose. At the end of `with` it is removed,
whether the block ended well, raised, or was stopped by Ctrl-C, SIGTERM or a closed terminal. Nothing can clean up after
SIGKILL or a power cut: such a folder is removed by the next run that wants a temporary folder in the same place.

A lock tells a dead owner from a living one. It is on a file beside the folder, and the system takes it back when the
owner ends. The file also names the owner's process, for file systems without locks. The lock file is made before the
folder and removed after it, so there is never a folder that seems to have no owner.

Left out: removing what older versions left, which had no lock files. Nobody can tell whose those folders are.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from thriftbit.containers.file_lock import is_at, lock
from thriftbit.containers.stopping import signals_wait, stop_signals_raise
from thriftbit.errors import ThriftbitError

PREFIX = "thriftbit-"
_LOCK_SUFFIX = ".lock"
_OWNER_LIMIT_BYTES = 512
_ON_DISK = Path("/var/tmp")

_living: dict[Path, FileIO] = {}  # the folders of this process, with their locks


@contextmanager
def temporary_folder(purpose: str, place: Path | None = None) -> Iterator[Path]:
    """Return an empty folder that only its owner may enter, removed at the end of `with`, however that comes.

    purpose: a word for the folder's name. place: the folder to make it in, by default the system's for temporary files.
    Raises ThriftbitError if it cannot be made.
    """
    with stop_signals_raise():
        folder: Path | None = None
        try:
            with signals_wait():
                folder = make_temporary_folder(purpose, place)
            yield folder
        finally:
            if folder is not None:
                with signals_wait():
                    remove_temporary_folder(folder)


def make_temporary_folder(purpose: str, place: Path | None = None) -> Path:
    """Return a folder as `temporary_folder` makes it, for an object that lives longer than a block

    `remove_temporary_folder` removes it, at the latest when the program ends.
    """
    place = place or Path(tempfile.gettempdir())
    clear_abandoned(place)
    return _make(place, purpose)


def remove_temporary_folder(folder: Path) -> None:
    """Removes what `make_temporary_folder` made, if it is still there."""
    if file := _living.pop(folder, None):
        _remove_with_lock(folder, file)


def place_for_large_files() -> Path | None:
    """Return where a temporary file as large as a model belongs: TMPDIR if somebody set it, else /var/tmp, as /tmp is
    often in memory; None for the system's choice."""
    return _ON_DISK if "TMPDIR" not in os.environ and os.access(_ON_DISK, os.W_OK) else None


def clear_abandoned(place: Path) -> None:
    """Removes the temporary folders in `place` whose owner is dead. Folders of other users are left alone."""
    for path in place.glob(f"{PREFIX}*{_LOCK_SUFFIX}"):
        folder = path.with_name(path.name.removesuffix(_LOCK_SUFFIX))
        if folder in _living:
            continue
        with suppress(OSError):
            _clear_if_dead(path, folder)


def _make(place: Path, purpose: str) -> Path:
    while True:
        folder = place / f"{PREFIX}{purpose}-{secrets.token_hex(8)}"
        try:
            owned = _own(_lock_path(folder))
            if owned is None:
                continue
            _living[folder] = owned
            folder.mkdir(mode=0o700)
            return folder
        except OSError as error:
            remove_temporary_folder(folder)
            raise ThriftbitError(
                f"{place}: a temporary folder cannot be made there ({error.strerror}); set TMPDIR or THRIFTBIT_CACHE "
                "to a folder that can be written"
            ) from None


def _own(path: Path) -> FileIO | None:
    """Return the new lock file, locked; None if another run took it for abandoned before it was locked."""
    file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "r+")
    try:
        file.write(_this_process())
        lock(file)
        if is_at(file, path):
            return file
    except BlockingIOError:
        pass
    except BaseException:
        file.close()
        raise
    file.close()
    return None


def _clear_if_dead(path: Path, folder: Path) -> None:
    # not blocking, as somebody could have put a pipe there
    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with FileIO(os.open(path, flags), "r+") as file:
        if not _is_ours(file):
            return
        owner = file.read(_OWNER_LIMIT_BYTES) or b""
        locked = lock(file)
        if is_at(file, path) and (locked or _is_dead(owner)):
            _remove_with_lock(folder, file)


def _is_ours(file: FileIO) -> bool:
    state = os.fstat(file.fileno())
    return stat.S_ISREG(state.st_mode) and (not hasattr(os, "geteuid") or state.st_uid == os.geteuid())


def _this_process() -> bytes:
    return f"{os.getpid()} {socket.gethostname()}".encode()[:_OWNER_LIMIT_BYTES]


def _is_dead(owner: bytes) -> bool:
    """Return whether the process that `_this_process` described has ended; False where that cannot be known."""
    import psutil

    number, _, host = owner.partition(b" ")
    return number.isdigit() and host == socket.gethostname().encode() and not psutil.pid_exists(int(number))


def _lock_path(folder: Path) -> Path:
    return folder.with_name(folder.name + _LOCK_SUFFIX)


def _remove_with_lock(folder: Path, file: FileIO) -> None:
    """file: the folder's lock file, which is closed and removed after the folder. Where something in the folder cannot
    be removed, both stay, and the next run tries again."""
    shutil.rmtree(folder, ignore_errors=True)
    if os.name == "nt":  # an open file cannot be removed there
        file.close()
    if not folder.is_dir():
        with suppress(OSError):
            _lock_path(folder).unlink(missing_ok=True)
    file.close()


@atexit.register
def _remove_all() -> None:
    """For a signal in one of the few moments between the steps above"""
    for folder in list(_living):
        remove_temporary_folder(folder)


def _leave_to_the_parent() -> None:
    """In a forked child: the folders and their locks are not its own"""
    while _living:
        _living.popitem()[1].close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)
