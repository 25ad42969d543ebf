"""Files that only their user may read: prompts, answers, votes, measurements, texts, and where models lie.

Whatever the program keeps between runs is written through these functions. Files get the mode 0600 and folders 0700,
whatever the umask says. What an older version left readable for others is narrowed when it is next used: a folder below
the cache or the user's data is narrowed with everything in it. A folder that THRIFTBIT_CACHE or THRIFTBIT_DATA names
keeps its mode if it was there before, as other programs may need it.

Windows: files in the user's profile are private by inheritance, and modes mean nothing there.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from thriftbit.containers.atomic_file import PRIVATE_MODE, AtomicFile
from thriftbit.errors import ThriftbitError
from thriftbit.folders import cache_folder, data_folder

_PRIVATE_FOLDER = 0o700
_OTHERS = 0o077


def private_folder(path: Path) -> Path:
    """Return `path`, made if missing with the folders above it, all of them private. Raises ThriftbitError if it cannot
    be made."""
    try:
        for folder in reversed([path, *path.parents]):
            if not folder.is_dir():
                folder.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
    except OSError as error:
        raise ThriftbitError(
            f"{path}: this folder cannot be made ({error.strerror}); set THRIFTBIT_CACHE and THRIFTBIT_DATA to folders "
            "that can be written"
        ) from None
    for folder in _ours_among((path, *path.parents)):
        _narrow(folder)
    return path


def open_private(path: Path, mode: str) -> BinaryIO:
    """Return the file, open in a binary mode such as "ab+"; made private first if others could read it. Raises OSError
    like `open`, and for what is not a regular file."""
    return cast(BinaryIO, open(path, mode, opener=_open_narrowed))


def write_private(path: Path, content: bytes) -> None:
    """Replaces the file at once, in a private folder that is made if missing. ThriftbitError if it cannot be written"""
    private_folder(path.parent)
    with AtomicFile(path, len(content), force=True, private=True) as file:
        file.write(content)


def _open_narrowed(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), PRIVATE_MODE)
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is not a regular file")
    if os.name != "nt" and state.st_mode & _OTHERS:
        with suppress(OSError):
            os.fchmod(descriptor, PRIVATE_MODE)
    return descriptor


def _ours_among(folders: tuple[Path, ...]) -> list[Path]:
    """Return the folders in the user's cache or data."""
    roots = {"THRIFTBIT_CACHE": cache_folder(), "THRIFTBIT_DATA": data_folder()}
    return [
        folder
        for folder in folders
        for variable, root in roots.items()
        if root in folder.parents or (folder == root and not os.environ.get(variable))
    ]


def _narrow(folder: Path) -> None:
    """Takes from others whatever they may do with the folder; if that was anything, with its content as well"""
    if os.name == "nt" or not folder.stat().st_mode & _OTHERS:
        return
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            with suppress(OSError):
                if not path.is_symlink():
                    path.chmod(_PRIVATE_FOLDER if path.is_dir() else PRIVATE_MODE)
    with suppress(OSError):
        folder.chmod(_PRIVATE_FOLDER)
