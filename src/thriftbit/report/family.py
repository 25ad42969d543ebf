"""Which rows belong together: one original, and the files that were made of it.

Rows know what they were measured against, and that is all that is needed: subjects that are linked by a comparison are
one family. The original is the end of the chain, what others were measured against and is itself measured against
nothing. A model folder cannot be run by llama.cpp, so its speed is measured on a GGUF in 16 bits: that file is another
subject with other bytes, and stands in for the original where nothing tells them apart.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from thriftbit.measurement.measurement import Measurement, Subject
from thriftbit.report.identity import Identity, identity

_LARGEST_BYTES = 10**18


@dataclass(frozen=True)
class Family:
    """originals: the original and what stands in for it, the original first; empty if there is none.
    rows: everything measured on the family, oldest first. strangers: names of subjects whose rows were left out."""

    originals: tuple[Identity, ...]
    rows: tuple[Measurement, ...]
    strangers: tuple[str, ...] = ()


def latest_family(rows: Sequence[Measurement]) -> Family:
    """rows: any, at least one. -> the family that was measured last.

    Families that were compared with something win over files that stand alone. Where nothing was compared at all, all
    that stand alone are taken together: somebody who measured three files may look at three files.
    """
    usable = sorted((row for row in rows if _has_a_size(row)), key=lambda row: row.time)
    if not usable:
        return Family((), ())
    groups = _linked(usable)
    compared = [group for group in groups if any(row.against for row in group)]
    chosen = max(compared, key=lambda group: group[-1].time) if compared else usable
    chosen_names = {identity(row.subject) for row in chosen}
    strangers = {identity(row.subject): row.subject.name for row in usable}
    return Family(
        originals=_originals(chosen),
        rows=tuple(chosen),
        strangers=tuple(name for one, name in strangers.items() if one not in chosen_names),
    )


def rows_about(rows: Sequence[Measurement], subjects: Collection[Identity]) -> list[Measurement]:
    """-> the rows of these subjects and of what they were measured against, and, for an original, of what was measured
    against it"""
    against = {identity(row.against) for row in rows if row.against and identity(row.subject) in subjects}
    return [
        row
        for row in rows
        if identity(row.subject) in {*subjects, *against} or (row.against and identity(row.against) in subjects)
    ]


def _linked(rows: Sequence[Measurement]) -> list[list[Measurement]]:
    """-> the rows by family, in the order that they came"""
    family_of: dict[Identity, set[Identity]] = {}
    for row in rows:
        linked = family_of.setdefault(identity(row.subject), {identity(row.subject)})
        if row.against:
            linked |= family_of.get(identity(row.against), {identity(row.against)})
        for one in linked:
            family_of[one] = linked
    groups: dict[int, list[Measurement]] = {}
    for row in rows:
        groups.setdefault(id(family_of[identity(row.subject)]), []).append(row)
    return list(groups.values())


def _originals(rows: Sequence[Measurement]) -> tuple[Identity, ...]:
    """-> the first has the most bits per weight, then the most that was measured against it"""
    compared = {identity(row.subject) for row in rows if row.against}
    candidates = [row.against for row in rows if row.against and identity(row.against) not in compared]
    uses = Counter(identity(candidate) for candidate in candidates)

    def rank(subject: Subject) -> tuple[float, int]:
        return (-subject.bits_per_weight, -uses[identity(subject)])

    return tuple(dict.fromkeys(identity(subject) for subject in sorted(candidates, key=rank)))


def _has_a_size(row: Measurement) -> bool:
    """Rows from elsewhere may claim anything; what has no size cannot be drawn, nor told in a sentence."""
    return all(
        0 < subject.size_bytes < _LARGEST_BYTES and math.isfinite(subject.bits_per_weight)
        for subject in (row.subject, row.against)
        if subject
    )
