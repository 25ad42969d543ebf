"""Reading files that somebody names: they must be regular files of a size that fits the purpose.

A pipe would hang, a device has no end, and a folder cannot be read. A file that is far larger than any of its kind is
refused before it fills the memory.
"""

from __future__ import annotations

import stat
from io import BufferedReader
from pathlib import Path

from thriftbit.errors import ThriftbitError
from thriftbit.sizes import describe_bytes


def open_regular(path: Path) -> BufferedReader:
    """Return the file open for reading. Anything but a readable regular file is a ThriftbitError: a missing one, a loop
    of symbolic links, a folder, a pipe, a device."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ThriftbitError(f"{path} is not a regular file")
        return path.open("rb")
    except FileNotFoundError:
        broken = path.is_symlink()
        raise ThriftbitError(
            f"{path} is a symbolic link to a file that is not there" if broken else f"{path} does not exist"
        ) from None
    except OSError as error:
        raise ThriftbitError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:  # a name with a null character
        raise ThriftbitError(f"{str(path)!r} is not the name of a file") from None


def read_regular(path: Path, limit_bytes: int) -> bytes:
    """Return the content. Raises ThriftbitError as `open_regular` does, and for a file above the limit."""
    with open_regular(path) as file:
        try:
            content = file.read(limit_bytes + 1)
        except OSError as error:
            raise ThriftbitError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > limit_bytes:
        raise ThriftbitError(f"{path} is larger than {describe_bytes(limit_bytes)}, which no file of this kind is")
    return content


def read_regular_text(path: Path, limit_bytes: int) -> str:
    """Return the UTF-8 text, without the mark that some editors put first. ThriftbitError as `read_regular` does, and
    for what is no text."""
    try:
        return read_regular(path, limit_bytes).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ThriftbitError(f"{path} is not UTF-8 text") from None


def refuse_link_out(path: Path, folder: Path) -> None:
    """Raises ThriftbitError if `path`, a file of the model in `folder`, is a link to a file outside of the model

    Whatever is copied word for word into a result could be any file of the user's, if an archive brought a link to it.
    The Hub's cache links the files in snapshots/COMMIT/ to blobs/ of the same repository: those are the model's.
    """
    real, inside = path.resolve(), folder.resolve()
    places = [inside, inside.parent.parent / "blobs"] if inside.parent.name == "snapshots" else [inside]
    if not any(real.is_relative_to(place) for place in places):
        raise ThriftbitError(
            f"{path} is a link to {real}, outside of the model's folder. If that file belongs to the model, put a copy "
            "in place of the link"
        )
