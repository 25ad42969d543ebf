"""Results of a long job, kept one by one, so that an interrupted job continues where it stopped.

A file of JSON lines, each with a key and a value. A line that was cut off while it was written is skipped, and its
result is computed again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from thriftbit.containers.regular_files import read_regular
from thriftbit.machine.private_files import open_private, private_folder

_LARGEST_BYTES = 1 << 30


class Journal:
    """path: of the file, created with its folder when the first result is kept. Values are plain JSON."""

    def __init__(self, path: Path, is_sound: Callable[[str, Any], bool] = lambda key, value: True) -> None:
        self._path = path
        self._known: dict[str, Any] = {}
        self._torn = False
        if path.exists():
            private_folder(path.parent)
            content = read_regular(path, _LARGEST_BYTES)
            self._torn = not content.endswith(b"\n")
            for line in content.splitlines():
                try:
                    key, value = json.loads(line)
                except (ValueError, TypeError, RecursionError):
                    continue
                if isinstance(key, str) and is_sound(key, value):
                    self._known[key] = value

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def under(self, prefix: str) -> dict[str, Any]:
        """Return the values of all keys that begin with the prefix, by the rest of the key."""
        return {key.removeprefix(prefix): value for key, value in self._known.items() if key.startswith(prefix)}

    def once(self, key: str, compute: Callable[[], Any]) -> Any:
        """Return the value kept under the key. If there is none, call `compute` and keep its result."""
        if key not in self._known:
            self.keep(key, compute())
        return self._known[key]

    def keep(self, key: str, value: Any) -> None:
        line = json.dumps([key, value], allow_nan=False) + "\n"
        private_folder(self._path.parent)
        with open_private(self._path, "ab") as file:
            file.write(("\n" + line if self._torn else line).encode())
        self._torn, self._known[key] = False, value
