"""Keeps what headers say between runs, so that thousands of files can be listed again without opening them.

A record is valid while its files have the same sizes and times of change; else the files are read again. A cache that
is damaged, of another version or not writable is ignored."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from thriftbit.containers.regular_files import read_regular
from thriftbit.errors import ThriftbitError
from thriftbit.folders import cache_folder
from thriftbit.library.content import Content
from thriftbit.machine.private_files import write_private

VERSION = 2
_LARGEST_BYTES = 256 << 20


class HeaderCache:
    """Contents and hashes by path. They are read when the object is made, and written by `save`."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or cache_folder() / "library.json"
        self._records = self._read()
        self._changed = False

    def content(self, files: Sequence[Path], read: Callable[[], Content]) -> Content:
        """Return the content of these files: from the cache if they are unchanged, else from `read`. A ThriftbitError
        that `read` raised is kept and raised again."""
        record = self._record(files)
        if isinstance(record.get("problem"), str):
            raise ThriftbitError(record["problem"])
        if "content" in record:
            with suppress(ThriftbitError):  # a damaged record: the file is read again
                return Content.from_json(record["content"])
        self._changed = True
        try:
            content = read()
        except ThriftbitError as error:
            record["problem"] = str(error)
            raise
        record["content"] = content.to_json()
        return content

    def hash(self, file: Path, kind: str, compute: Callable[[], str]) -> str:
        """Return a hash of one file: from the cache if the file is unchanged, else from `compute`. kind: of the hash,
        because a file may have several."""
        record = self._record([file])
        hashes = record.get("hashes")
        if not isinstance(hashes, dict):
            hashes = record["hashes"] = {}
        if not isinstance(hashes.get(kind), str):
            hashes[kind] = compute()
            self._changed = True
        return str(hashes[kind])

    def save(self) -> None:
        """Write the cache, if its folder can be written."""
        if not self._changed:
            return
        there = {key: record for key, record in self._records.items() if Path(key).exists()}
        # names of files may hold bytes that are no characters; JSON escapes them
        with suppress(ThriftbitError):
            write_private(self._path, json.dumps({"version": VERSION, "files": there}).encode())

    def _record(self, files: Sequence[Path]) -> dict[str, Any]:
        """Return the record of these files in their present state; a new one, to be filled, if there is none."""
        states = [_state(file) for file in files]
        key = str(files[0])
        record = self._records.get(key)
        if record is None or record.get("state") != states:
            record = self._records[key] = {"state": states}
        return record

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            document = json.loads(read_regular(self._path, _LARGEST_BYTES))
            if document["version"] != VERSION:
                return {}
            return {key: record for key, record in document["files"].items() if isinstance(record, dict)}
        except (ThriftbitError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}


def _state(file: Path) -> list[Any]:
    try:
        state = file.stat()
    except OSError:
        return [str(file), None]
    return [str(file), state.st_size, state.st_mtime_ns]
