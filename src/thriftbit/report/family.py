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

_LARGEST_BYTES = 10**18


@dataclass(frozen=True)
class Family:
    """originals: fingerprints of the original and of what stands in for it, the original first; empty if there is none.
    rows: everything measured on the family, oldest first. strangers: names of subjects whose rows were left out."""

    originals: tuple[str, ...]
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
    chosen_names = {row.subject.fingerprint for row in chosen}
    strangers = {row.subject.fingerprint: row.subject.name for row in usable}
    return Family(
        originals=_originals(chosen),
        rows=tuple(chosen),
        strangers=tuple(name for fingerprint, name in strangers.items() if fingerprint not in chosen_names),
    )


def rows_about(rows: Sequence[Measurement], fingerprints: Collection[str]) -> list[Measurement]:
    """-> the rows of these subjects and of what they were measured against, and, for an original, of what was measured
    against it"""
    against = {row.against.fingerprint for row in rows if row.against and row.subject.fingerprint in fingerprints}
    return [
        row
        for row in rows
        if row.subject.fingerprint in {*fingerprints, *against}
        or (row.against and row.against.fingerprint in fingerprints)
    ]


def _linked(rows: Sequence[Measurement]) -> list[list[Measurement]]:
    """-> the rows by family, in the order that they came"""
    family_of: dict[str, set[str]] = {}
    for row in rows:
        linked = family_of.setdefault(row.subject.fingerprint, {row.subject.fingerprint})
        if row.against:
            linked |= family_of.get(row.against.fingerprint, {row.against.fingerprint})
        for fingerprint in linked:
            family_of[fingerprint] = linked
    groups: dict[int, list[Measurement]] = {}
    for row in rows:
        groups.setdefault(id(family_of[row.subject.fingerprint]), []).append(row)
    return list(groups.values())


def _originals(rows: Sequence[Measurement]) -> tuple[str, ...]:
    """-> fingerprints; the first has the most bits per weight, then the most that was measured against it"""
    compared = {row.subject.fingerprint for row in rows if row.against}
    candidates = [row.against for row in rows if row.against and row.against.fingerprint not in compared]
    uses = Counter(candidate.fingerprint for candidate in candidates)

    def rank(subject: Subject) -> tuple[float, int]:
        return (-subject.bits_per_weight, -uses[subject.fingerprint])

    return tuple(dict.fromkeys(subject.fingerprint for subject in sorted(candidates, key=rank)))


def _has_a_size(row: Measurement) -> bool:
    """Rows from elsewhere may claim anything; what has no size cannot be drawn, nor told in a sentence."""
    return all(
        0 < subject.size_bytes < _LARGEST_BYTES and math.isfinite(subject.bits_per_weight)
        for subject in (row.subject, row.against)
        if subject
    )
