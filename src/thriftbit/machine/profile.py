"""A computer as predictions see it: what it is, and what was measured of it.

`thriftbit doctor --measure` makes a profile (`runtime/probe.py`) and keeps it in the user's cache. A profile belongs to
the hardware that it was measured on. So a fingerprint of processor, memory and GPUs is kept with it; if the hardware
has changed, the profile does not count. As JSON, a profile answers questions about another computer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from thriftbit.containers.regular_files import read_regular_text
from thriftbit.errors import ThriftbitError
from thriftbit.folders import cache_folder
from thriftbit.machine.facts import Facts
from thriftbit.machine.private_files import write_private
from thriftbit.machine.records import from_document, to_document

VERSION = 2
_LARGEST_FILE_BYTES = 4 << 20


@dataclass(frozen=True)
class Spread:
    """Several measurements of one thing: their median, and the quartiles beside it."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Bandwidth:
    """Reading memory far larger than the caches, with a number of threads."""

    threads: int
    bytes_per_second: Spread


@dataclass(frozen=True)
class FormatRate:
    """What the real engine does with matrices stored in a format, far larger than the caches.

    format: GGML's name, as `formats.FORMATS` has it. decode_bytes_per_second: bytes of weights read to write a token,
    over the time of it. prefill_weights_per_second: weights × tokens multiplied in a second, reading a prompt.
    """

    format: str
    threads: int
    decode_bytes_per_second: Spread
    prefill_weights_per_second: Spread


@dataclass(frozen=True)
class StepCost:
    """What a token written takes beyond reading the weights at the rate of their format: small next to a large model,
    a third of the time of a small one.

    layer_seconds: for every layer: norms, narrow matrices, waiting for one another. token_seconds: once.
    attention_seconds: for every number of a query and every token that the busiest thread looks back at; None where it
    was not measured. So a token takes sum(bytes / rate of their format) + layers × layer_seconds + token_seconds
    + layers × query width × `busiest_tokens` × attention_seconds.
    """

    threads: int
    layer_seconds: float
    token_seconds: float
    attention_seconds: float | None = None


@dataclass(frozen=True)
class Profile:
    """facts: as they were when it was measured. best_threads: with which the engine writes fastest. measured_at: ISO
    8601, in UTC; None for a machine that was only looked at. engine: its version, as rows of measurements have it.
    device: what the rates were measured on: "CPU", or the GPUs' names."""

    facts: Facts
    bandwidth: tuple[Bandwidth, ...] = ()
    rates: tuple[FormatRate, ...] = ()
    step_costs: tuple[StepCost, ...] = ()
    disk_read_bytes_per_second: Spread | None = None
    best_threads: int | None = None
    measured_at: str | None = None
    engine: str = ""
    device: str = ""
    busy_cores: float | None = None
    """Kept busy by other programs while it was measured."""

    def to_json(self) -> str:
        document = {"thriftbit_profile": VERSION, "fingerprint": fingerprint(self.facts), **to_document(self)}
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Profile:
        """Raises ThriftbitError for what is no profile."""
        return _checked(from_document(Profile, _document(text), "profile"))

    def __repr__(self) -> str:
        measured = f"measured {self.measured_at[:10]}" if self.measured_at else "not measured"
        return f"Profile({self.facts.processor.name.value}, {measured})"


def fingerprint(facts: Facts) -> dict[str, Any]:
    """Return what rates depend on and what stays the same until somebody opens the case (or resizes the container)."""
    processor, memory = facts.processor, facts.memory
    total = memory.total_bytes.value
    return {
        "processor": processor.name.value,
        "architecture": processor.architecture.value,
        "logical_cores": processor.logical_cores.value,
        "usable_cores": processor.usable_cores.value,
        # what the firmware keeps for itself changes with its version, by a few MB
        "memory_gibibytes": total and round(total / (1 << 30) * 2) / 2,
        # not their memory: of some it is known only where the engine was asked
        "gpus": sorted(f"{gpu.vendor} {gpu.name.value}" for gpu in facts.gpus),
    }


def profile_file() -> Path:
    return cache_folder() / "machine" / "profile.json"


def read_profile(facts: Facts | None = None) -> Profile | None:
    """Return what was measured of this computer, with the present facts; None if nothing was measured, or of other
    hardware.

    facts: the present ones, if they were detected already.
    """
    if not profile_file().is_file():
        return None
    if facts is None:
        from thriftbit.machine.detect import detect

        facts = detect()
    return stored_profile(facts)


def profile_of(facts: Facts) -> Profile:
    """Return what was measured of the computer with those facts; the facts alone, if nothing was measured."""
    return stored_profile(facts) or Profile(facts)


def stored_profile(facts: Facts) -> Profile | None:
    """Return the profile in the cache, if it is of the hardware in `facts`. An unreadable file counts as none."""
    try:
        document = _document(read_limited(profile_file()))
        profile = _checked(from_document(Profile, document, "profile"))
    except ThriftbitError:
        return None
    return replace(profile, facts=facts) if document.get("fingerprint") == fingerprint(facts) else None


def load_profile(path: Path) -> Profile:
    """Return the profile of a computer, perhaps another one, as `thriftbit doctor --json` prints it. Raises
    ThriftbitError naming the file."""
    text = read_limited(path)
    try:
        return Profile.from_json(text)
    except ThriftbitError as error:
        raise ThriftbitError(
            f"{path}: is no profile of a computer: {error}; `thriftbit doctor --json` makes one"
        ) from None


def store_profile(profile: Profile) -> Path:
    """Return where it is kept from now on; ThriftbitError if it cannot be written."""
    write_private(profile_file(), profile.to_json().encode())
    return profile_file()


def read_limited(path: Path) -> str:
    """Return the text of a file that is no larger than a profile can be; ThriftbitError if it cannot be read."""
    return read_regular_text(path, _LARGEST_FILE_BYTES)


def _checked(profile: Profile) -> Profile:
    """Return the profile. Raises ThriftbitError for impossible rates, because everything is divided by them."""
    rates = [each.bytes_per_second for each in profile.bandwidth]
    rates += [
        spread for each in profile.rates for spread in (each.decode_bytes_per_second, each.prefill_weights_per_second)
    ]
    rates += [profile.disk_read_bytes_per_second] if profile.disk_read_bytes_per_second else []
    costs = [
        seconds or 0.0
        for each in profile.step_costs
        for seconds in (each.layer_seconds, each.token_seconds, each.attention_seconds)
    ]
    if any(not 0 < rate.low <= rate.median <= rate.high for rate in rates) or any(seconds < 0 for seconds in costs):
        raise ThriftbitError("it has rates that are not above zero, or quartiles out of order")
    return profile


def _document(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ThriftbitError("it is not JSON") from None
    if not isinstance(document, dict) or document.get("thriftbit_profile") != VERSION:
        raise ThriftbitError(f'it does not say "thriftbit_profile": {VERSION}')
    return document
