"""What headers said, kept between runs: thousands of files are looked at again without being opened.

A record stands for its files' sizes and times of change; when one differs the files are read anew. The cache belongs to
nobody but us: damaged, of another version, or not writable, it is as if it were not there.
"""

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
    """Of contents and hashes, by path. Read when made, written by `save`."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or cache_folder() / "library.json"
        self._records = self._read()
        self._changed = False

    def content(self, files: Sequence[Path], read: Callable[[], Content]) -> Content:
        """Return what `read` gives for these files, from the cache where they
        are unchanged. ThriftbitError as it raised."""
        record = self._record(files)
        if isinstance(record.get("problem"), str):
            raise ThriftbitError(record["problem"])
        if "content" in record:
            with suppress(ThriftbitError):  # of a damaged record: the file is read anew
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
        """Return a hash of one file; kind: which, as a file may have several."""
        record = self._record([file])
        hashes = record.get("hashes")
        if not isinstance(hashes, dict):
            hashes = record["hashes"] = {}
        if not isinstance(hashes.get(kind), str):
            hashes[kind] = compute()
            self._changed = True
        return str(hashes[kind])

    def save(self) -> None:
        """Keeps what was read for the next time, if the folder can be written."""
        if not self._changed:
            return
        there = {key: record for key, record in self._records.items() if Path(key).exists()}
        # names of files may hold what is no character; JSON spells it as an escape
        with suppress(ThriftbitError):
            write_private(self._path, json.dumps({"version": VERSION, "files": there}).encode())

    def _record(self, files: Sequence[Path]) -> dict[str, Any]:
        """Return what is known of these files as they are now; {} to be filled where nothing is."""
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
