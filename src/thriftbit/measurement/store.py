"""Where rows are kept: one JSON Lines file in the user's cache, which only ever grows.

Several processes may append at once: all rows of one call are written under a lock. If a crash left half a line, that
line is ended before the next one begins. A bad line is passed over and counted, so reading never fails because of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock

from thriftbit.containers.atomic_file import PRIVATE_MODE
from thriftbit.containers.regular_files import read_regular
from thriftbit.errors import ThriftbitError
from thriftbit.folders import cache_folder
from thriftbit.machine.private_files import open_private, private_folder
from thriftbit.measurement.measurement import Measurement

LARGEST_BYTES = 1 << 30  # a row takes about 1 kB


def store_path() -> Path:
    """Return where measurements are kept."""
    return cache_folder() / "measurements.jsonl"


def append(rows: Iterable[Measurement], path: Path | None = None) -> None:
    """Adds rows to the file, by default the user's store. Raises ThriftbitError if it cannot be written."""
    # names of files may hold what is no character; as a JSON escape it can be written and comes back as it was
    lines = "".join(row.to_json() + "\n" for row in rows).encode(errors="backslashreplace")
    append_lines(lines, path or store_path(), "measurements")


def append_lines(lines: bytes, path: Path, what: str) -> None:
    """what: these lines are, in the words of the ThriftbitError that is raised if they cannot be written"""
    try:
        private_folder(path.parent)
        with FileLock(path.with_name(path.name + ".lock"), mode=PRIVATE_MODE), open_private(path, "ab+") as file:
            if file.tell() and not _ends_a_line(file.fileno(), file.tell()):
                lines = b"\n" + lines
            file.write(lines)
    except (OSError, ThriftbitError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ThriftbitError(f"{path}: {what} cannot be kept: {reason}") from None


def read(path: Path) -> tuple[list[Measurement], list[str]]:
    """Return the rows of a file, oldest first, and a sentence for each line that is none; ThriftbitError if the file
    cannot be read."""
    lines = read_regular(path, LARGEST_BYTES).split(b"\n")
    rows: list[Measurement] = []
    problems: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(Measurement.from_json(line.decode()))
        except UnicodeDecodeError:
            problems.append(f"{path}, line {number}: is not UTF-8")
        except ThriftbitError as error:
            problems.append(f"{path}, line {number}: {error}")
    return rows, problems


def _ends_a_line(descriptor: int, size: int) -> bool:
    os.lseek(descriptor, size - 1, os.SEEK_SET)
    return os.read(descriptor, 1) == b"\n"
