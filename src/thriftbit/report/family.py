"""Which rows belong together: one original, and the files that were made from it.

Rows know what they were measured against, and that is enough: subjects that a comparison links are one family. The
original is the end of the chain: others were measured against it, and it was measured against nothing. llama.cpp cannot
run a model folder, so the folder's speed is measured on a GGUF in 16 bits. That file is another subject with other
bytes. It stands in for the original where nothing tells them apart.
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
class MeasuredFamily:
    """originals: the original and what stands in for it, the original first; empty if there is none.
    rows: everything measured on the family, oldest first. strangers: names of subjects whose rows were left out."""

    originals: tuple[Identity, ...]
    rows: tuple[Measurement, ...]
    strangers: tuple[str, ...] = ()


def latest_family(rows: Sequence[Measurement]) -> MeasuredFamily:
    """Return the family that was measured last.

    rows: at least one. Families with a comparison win over files that stand alone. Where nothing was compared, all
    files that stand alone are taken together: somebody who measured three files wants to see three files.
    """
    usable = sorted((row for row in rows if _has_a_size(row)), key=lambda row: row.time)
    if not usable:
        return MeasuredFamily((), ())
    groups = _linked(usable)
    compared = [group for group in groups if any(row.against for row in group)]
    chosen = max(compared, key=lambda group: group[-1].time) if compared else usable
    chosen_names = {identity(row.subject) for row in chosen}
    strangers = {identity(row.subject): row.subject.name for row in usable}
    return MeasuredFamily(
        originals=_originals(chosen),
        rows=tuple(chosen),
        strangers=tuple(name for one, name in strangers.items() if one not in chosen_names),
    )


def rows_about(rows: Sequence[Measurement], subjects: Collection[Identity]) -> list[Measurement]:
    """Return the rows of these subjects and of what they were measured against, and, for an original, of what was
    measured against it."""
    against = {identity(row.against) for row in rows if row.against and identity(row.subject) in subjects}
    return [
        row
        for row in rows
        if identity(row.subject) in {*subjects, *against} or (row.against and identity(row.against) in subjects)
    ]


def _linked(rows: Sequence[Measurement]) -> list[list[Measurement]]:
    """Return the rows by family, in the order that they came."""
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
    """Return the originals. The first has the most bits per weight; if several have as many, the most comparisons."""
    compared = {identity(row.subject) for row in rows if row.against}
    candidates = [row.against for row in rows if row.against and identity(row.against) not in compared]
    uses = Counter(identity(candidate) for candidate in candidates)

    def rank(subject: Subject) -> tuple[float, int]:
        return (-subject.bits_per_weight, -uses[identity(subject)])

    return tuple(dict.fromkeys(identity(subject) for subject in sorted(candidates, key=rank)))


def _has_a_size(row: Measurement) -> bool:
    """Return whether the row has a usable size. Rows from elsewhere may claim anything, and without a size nothing can
    be drawn or told."""
    return all(
        0 < subject.size_bytes < _LARGEST_BYTES and math.isfinite(subject.bits_per_weight)
        for subject in (row.subject, row.against)
        if subject
    )
