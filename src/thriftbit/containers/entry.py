"""A tensor in a format: what every container holds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from thriftbit.formats.format import Format


@dataclass(frozen=True)
class Entry:
    """A tensor to be written. shape: numpy order."""

    name: str
    shape: tuple[int, ...]
    format: Format

    @property
    def size_bytes(self) -> int:
        """Return the bytes of its blocks. ThriftbitError for a width that the format cannot hold."""
        return math.prod(self.shape[:-1]) * self.format.row_bytes(self.shape[-1])
