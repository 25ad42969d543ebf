"""Votes of blind rounds: one line each in a file of the user's, which only ever grows, and what they add up to.

A vote is about two files, known by their content, so that it counts wherever they lie and whatever they are called.
What was asked and answered is not kept.

"I can't tell" counts half, because a guess is right half of the time. If it were left out, people who can rarely tell
would look as if they always could. A coin thrown for it would make the result depend on the coin.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from thriftbit.containers.regular_files import read_regular
from thriftbit.folders import data_folder
from thriftbit.measurement.clopper_pearson import clopper_pearson
from thriftbit.measurement.store import LARGEST_BYTES, append_lines

CONFIDENCE = 0.95
KIND, VERSION = "thriftbit vote", 1
PICKED = {"original": 1.0, "other": 0.0, "cannot tell": 0.5}  # what it counts


@dataclass(frozen=True)
class Vote:
    """original, other: the contents of the two files. original_name, other_name: what they were called. picked: which
    one was taken for the original, one of PICKED. when: in UTC, "2026-11-27T18:00:00+00:00"."""

    original: str
    other: str
    original_name: str
    other_name: str
    picked: str
    temperature: float
    when: str


@dataclass(frozen=True)
class Tally:
    """right: how many of the votes, with a half for each "I can't tell"."""

    right: float = 0.0
    votes: int = 0
    cannot_tell: int = 0

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high) for how often this person is right, exact. Half a vote is rounded down for the lower
        end and up for the upper end, so that the interval stays on the safe side. Raises ValueError without votes."""
        low, _ = clopper_pearson(math.floor(self.right), self.votes, CONFIDENCE)
        _, high = clopper_pearson(math.ceil(self.right), self.votes, CONFIDENCE)
        return low, high


def votes_path() -> Path:
    return data_folder() / "votes.jsonl"


def append(vote: Vote, path: Path | None = None) -> None:
    """Raises ThriftbitError if it cannot be kept."""
    line = json.dumps({"kind": KIND, "version": VERSION, **asdict(vote)}) + "\n"
    append_lines(line.encode(), path or votes_path(), "votes")


def read(path: Path | None = None) -> tuple[list[Vote], int]:
    """Return the votes, oldest first, and how many lines are none, which
    are passed over; none at all without a file."""
    path = path or votes_path()
    if not os.path.lexists(path):
        return [], 0
    lines = [line for line in read_regular(path, LARGEST_BYTES).split(b"\n") if line.strip()]
    votes = [vote for line in lines if (vote := _vote(line)) is not None]
    return votes, len(lines) - len(votes)


def tally(votes: Iterable[Vote], original: str, other: str) -> Tally:
    """Return the tally of the votes on these two contents."""
    picked = [vote.picked for vote in votes if (vote.original, vote.other) == (original, other)]
    return Tally(sum(PICKED[each] for each in picked), len(picked), picked.count("cannot tell"))


def _vote(line: bytes) -> Vote | None:
    try:
        document: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or (document.pop("kind", None), document.pop("version", None)) != (KIND, VERSION):
        return None
    temperature = document.pop("temperature", None)
    if isinstance(temperature, bool) or not isinstance(temperature, int | float):
        return None
    names = set(Vote.__dataclass_fields__) - {"temperature"}
    if set(document) != names or not all(isinstance(value, str) for value in document.values()):
        return None
    return Vote(**document, temperature=float(temperature)) if document["picked"] in PICKED else None
