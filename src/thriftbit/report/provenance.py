"""Where every number comes from: the commands that measured them, and what each command gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from thriftbit.measurement.measurement import Measurement
from thriftbit.report.numbers import describe, describe_interval
from thriftbit.report.summary import Summary

_SHOWN_ELSEWHERE = "answer"  # a number of tokens is not what an answer is about
_NOT_MEASURED = "not measurable"


@dataclass(frozen=True)
class ProvenanceRow:
    """One row, in words. machine: a letter, "" if there is only one machine."""

    what: str
    subject: str
    value: str
    interval: str
    settings: str
    machine: str


@dataclass(frozen=True)
class Command:
    """line: to type; "" where rows do not tell. time: of its last row, to the minute, in UTC."""

    line: str
    time: str
    facts: tuple[ProvenanceRow, ...]


def commands(summary: Summary) -> list[Command]:
    """Return every command that a row names, in the order that they were run, with all its numbers."""
    rows: dict[str, list[Measurement]] = {}
    for row in summary.rows:
        rows.setdefault(row.command, []).append(row)
    return [
        Command(
            line, _minute(found[-1].time), tuple(_fact(row, summary) for row in found if row.what != _SHOWN_ELSEWHERE)
        )
        for line, found in rows.items()
    ]


def machine_letter(summary: Summary, row: Measurement) -> str:
    if len(summary.machines) < 2 or row.machine not in summary.machines:
        return ""
    return machine_letters(summary)[summary.machines.index(row.machine)]


def machine_letters(summary: Summary) -> list[str]:
    """Return "A", "B", … "Z", "27"."""
    return [chr(ord("A") + number) if number < 26 else str(number + 1) for number in range(len(summary.machines))]


def versions(rows: Sequence[Measurement]) -> dict[str, str]:
    """Return, for each program, its versions that measured."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        for name, version in row.versions.items():
            found.setdefault(name, {})[str(version)] = None
    return {name: ", ".join(those) for name, those in sorted(found.items())}


def _fact(row: Measurement, summary: Summary) -> ProvenanceRow:
    return ProvenanceRow(
        what=row.quantity.label,
        subject=summary.label_of(row.subject),
        value=describe(row) if row.value is not None else _NOT_MEASURED,
        interval=" ".join(filter(None, (describe_interval(row), f"({row.interval})" if row.interval else ""))),
        settings=", ".join(f"{name.replace('_', ' ')} {value}" for name, value in row.settings.items()),
        machine=machine_letter(summary, row),
    )


def _minute(time: str) -> str:
    """Return "2026-11-22 14:10 UTC", or the text as it is if it is no time."""
    date, separator, clock = time.partition("T")
    return f"{date} {clock[:5]} UTC" if separator and clock else time
