"""What exporting to a program is made of; one file for each program follows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from thriftbit.runtime.export.transaction import Placed, Transaction


@dataclass(frozen=True)
class Destination:
    """How a program will know the model. name: what it calls it. folder: where that program keeps models. marker: the
    file that makes the model known, or the first of its weights. command: runs it. notes: sentences on what else there
    is to know. details: what was composed for the program, for --json."""

    name: str
    folder: Path
    marker: Path
    command: str
    notes: tuple[str, ...]
    details: dict[str, Any]


class Target(Protocol):
    """A program, and a model that is to be handed to it. Made without changing anything; ThriftbitError then already
    for whatever is known to fail: a model that the program cannot load, a name that it would not take."""

    program: str
    destination: Destination

    def taken(self) -> Sequence[Path]:
        """-> files that are there already and would have to go"""
        ...

    def register(self, transaction: Transaction, replace: bool) -> list[Placed]:
        """Put everything in its place; what makes it known to the program last. replace: what is there may go."""
        ...
