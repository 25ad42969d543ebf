"""A lock on an open file, which the system takes back when its owner ends, however it ends."""

from __future__ import annotations

import os
import sys
from io import FileIO
from pathlib import Path


def lock(file: FileIO) -> bool:
    """Return whether `file` is locked now; False on a file system that has no locks. Raises BlockingIOError if another
    process, or another open file of this one, holds the lock."""
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
            return False
    return True


def is_at(file: FileIO, path: Path) -> bool:
    """Return whether `path` still leads to the open `file`: nobody has removed or replaced it meanwhile."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
