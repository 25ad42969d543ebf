"""Rows from repetitions: the median and quartiles of each file's numbers, and of their ratios to the original's.

Ratios are paired. In each repetition the original and the files took turns, so whatever slowed the computer down slowed
all of them, and cancels in the ratio. Of memory the maximum counts, so there is one number.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thriftbit.measurement.measurement import EXACT, QUARTILES, Measurement, Scalar, Subject
from thriftbit.measurement.quantities import QUANTITIES
from thriftbit.measurement.repetition import Reason, Repetition

_REPEATED: dict[str, Callable[[Repetition], float | Reason]] = {
    "load_time": lambda repetition: repetition.load_seconds,
    "first_token_time": lambda repetition: repetition.first_token_seconds,
    "prefill_rate": lambda repetition: repetition.prefill_rate,
    "decode_rate": lambda repetition: repetition.decode_rate,
    "energy_per_token": lambda repetition: repetition.energy_per_token,
}
_PEAKS: dict[str, Callable[[Repetition], float | Reason]] = {
    "peak_memory": lambda repetition: repetition.peak_memory_bytes,
    "peak_gpu_memory": lambda repetition: repetition.peak_gpu_memory_bytes,
}


@dataclass(frozen=True)
class Measured:
    """Of one file. failure: why it counts as not measured, whatever was measured before; "" if it was."""

    subject: Subject
    repetitions: Sequence[Repetition]
    failure: str = ""


def speed_rows(
    measured: Measured,
    original: Measured | None,
    settings: Mapping[str, Scalar],
    energy_of: str,
    circumstances: Mapping[str, Any],
) -> Iterator[Measurement]:
    """Return what was measured of a file, and its ratios to the original, None if there is none or this is it.

    settings, circumstances: of all rows. energy_of: whose energy was counted, for people.
    """
    common = {
        "subject": measured.subject,
        "against": original.subject if original else None,
        "settings": {**settings, "repetitions": len(measured.repetitions)},
        **circumstances,
    }
    for what in (*_REPEATED, *_PEAKS):
        note = f"of {energy_of}" if what == "energy_per_token" else ""
        numbers = _numbers(measured, what)
        yield Measurement(what=what, **common, **_summary(numbers, note), detail=_detail(measured, what))
        if original and f"{what}_ratio" in QUANTITIES:
            ratios = _ratios(numbers, _numbers(original, what))
            yield Measurement(what=f"{what}_ratio", **common, **_summary(ratios, note))


def _numbers(measured: Measured, what: str) -> list[float] | Reason:
    if measured.failure or not measured.repetitions:
        return measured.failure or "not measured: it was interrupted"
    values = [(_REPEATED | _PEAKS)[what](repetition) for repetition in measured.repetitions]
    reasons = [value for value in values if isinstance(value, Reason)]
    if reasons:
        return reasons[0]
    numbers = [value for value in values if not isinstance(value, Reason)]
    return numbers if what in _REPEATED else [max(numbers)]


def _ratios(numbers: list[float] | Reason, original: list[float] | Reason) -> list[float] | Reason:
    if isinstance(numbers, Reason):
        return numbers
    if isinstance(original, Reason):
        return f"of the original: {original}"
    return [ours / theirs for ours, theirs in zip(numbers, original, strict=False)]  # Ctrl-C may have cut a round short


def _summary(numbers: list[float] | Reason, note: str) -> dict[str, Any]:
    """Return the fields value, low, high, interval and note of a row."""
    if isinstance(numbers, Reason):
        return {"value": None, "note": numbers}
    if len(numbers) == 1:
        return {"value": numbers[0], "interval": EXACT, "note": note}
    low, median, high = statistics.quantiles(numbers, n=4, method="inclusive")
    return {"value": median, "low": low, "high": high, "interval": QUARTILES, "note": note}


def _detail(measured: Measured, what: str) -> dict[str, Any]:
    if what != "peak_memory" or not measured.repetitions or measured.failure:
        return {}
    return {"before_loading_bytes": max(repetition.before_loading_bytes for repetition in measured.repetitions)}
