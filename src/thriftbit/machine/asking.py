"""Whether to ask the user to measure this computer: once for this hardware, and not again after a no."""

from __future__ import annotations

import json
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path

from thriftbit.errors import ThriftbitError
from thriftbit.folders import cache_folder
from thriftbit.machine.facts import Facts
from thriftbit.machine.private_files import write_private
from thriftbit.machine.profile import fingerprint, profile_file, read_limited, stored_profile


class Standing(Enum):
    """What is known of this hardware's speed."""

    MEASURED = auto()
    DECLINED = auto()
    NEW = auto()
    CHANGED = auto()
    """Other hardware was measured here."""


def standing(facts: Facts) -> Standing:
    if stored_profile(facts) is not None:
        return Standing.MEASURED
    try:
        declined = json.loads(read_limited(_answer_file()))
    except (ValueError, RecursionError, ThriftbitError):
        declined = None  # a file that cannot be read counts as none: it is asked once more
    if declined == fingerprint(facts):
        return Standing.DECLINED
    return Standing.CHANGED if profile_file().is_file() else Standing.NEW


def remember_no(facts: Facts) -> None:
    """Keeps the answer for this hardware. If it cannot be written, the question comes again."""
    with suppress(ThriftbitError):
        write_private(_answer_file(), json.dumps(fingerprint(facts)).encode())


def _answer_file() -> Path:
    return cache_folder() / "machine" / "not-measured.json"
