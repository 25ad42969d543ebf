"""`thriftbit find`: what there is of a model, on this disk and on the Hub, best first, marked with what fits here.

Expected quality decides the order: how many weights there are, and how much of each is kept. In the scaling law of
Kumar et al. (Scaling Laws for Precision, 2024, arXiv 2411.04330) a model of N weights in P bits is worth one of
N·(1 − exp(−P/γ)) weights, with γ about 2.7 for weights; that is an order, not a measurement, and no number of it is
shown. For what a precision costs this model on this computer there are `thriftbit measure` and `thriftbit fit`.

Nothing is downloaded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from thriftbit.errors import UsageError
from thriftbit.library.fits import Memory, estimated_need, memory_here
from thriftbit.library.found import Finding, hub_finding, local_finding
from thriftbit.library.hub_search import search_hub
from thriftbit.library.inventory import matches, take_inventory
from thriftbit.library.names import parse_quantization
from thriftbit.sizes import describe_bytes

_GAMMA = 2.7  # bits
_FULL_BITS = 16.0
_READY_BITS = 9  # at most, of a file that is worth downloading ready-made: Q8_0 and below
_USUAL_SHARE = 4.89 / 16  # of an original that is left of it as Q4_K_M


@dataclass(frozen=True)
class Findings:
    """local, hub: each the best first; what could not be read comes last. notes: sentences on what was not looked at,
    and why. memory: of this computer. hub_asked: whether the Hub answered."""

    words: tuple[str, ...]
    local: tuple[Finding, ...]
    hub: tuple[Finding, ...]
    notes: tuple[str, ...]
    memory: Memory
    hub_answered: bool

    @property
    def next_steps(self) -> tuple[tuple[str, str], ...]:
        """-> what to do, and the command for it: with the best that is here, the best ready-made, the best original"""
        return tuple(_next_steps(self))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"next": [{"why": why, "command": command} for why, command in self.next_steps]}


def find(
    words: Sequence[str] = (),
    *,
    local: bool = False,
    offline: bool = False,
    look: bool = False,
) -> Findings:
    """-> models whose names or contents have all words: on this disk and, unless `local` or `offline`, on the Hub

    Without words, everything on this disk. look: read headers on the Hub too, some megabytes for each GGUF file.
    Never fails for a file or a Hub that cannot be read: that is in the findings.
    """
    words = [part for word in words for part in word.split()]
    if look and (local or offline or not words):
        raise UsageError("--look reads headers on the Hub: give words to search, and neither --local nor --offline")
    memory = memory_here()
    inventory = take_inventory(words)
    here = [local_finding(model, memory) for model in inventory.models if model.is_model]
    notes = list(inventory.warnings)
    there: list[Finding] = []
    answered = False
    if words and not local and not offline:
        levels = [word for word in words if _is_level(word)]
        answer = search_hub([word for word in words if word not in levels] or words, look=look)
        there = [finding for file in answer.files if _has(levels, finding := hub_finding(file, memory))]
        answered = bool(answer.files) or answer.problem is None
        notes += [answer.problem] if answer.problem else []
    return Findings(
        words=tuple(words),
        local=tuple(sorted(here, key=_order)),
        hub=tuple(sorted(there, key=_order)),
        notes=tuple(notes),
        memory=memory,
        hub_answered=answered,
    )


def _is_level(word: str) -> bool:
    """-> whether it names a precision that files have in their names; the Hub searches those of repositories"""
    quantization = parse_quantization(word)
    return quantization is not None and (
        quantization.scheme.family.container == "GGUF" or quantization.scheme.family.name == "float"
    )


def _has(levels: Sequence[str], finding: Finding) -> bool:
    return matches(levels, f"{finding.name} {finding.what}")


def _order(finding: Finding) -> tuple[bool, float, float, str]:
    quality = expected_quality(finding.parameters, finding.bits_per_weight)
    return (finding.what is None, -quality, -(finding.downloads or 0), finding.name)


def expected_quality(parameters: int | None, bits_per_weight: float | None) -> float:
    """-> a number that orders models of one family by what they may be worth; 0 where nothing is known"""
    if not parameters or not bits_per_weight:
        return 0.0
    return parameters * (1 - math.exp(-min(bits_per_weight, _FULL_BITS) / _GAMMA))


def _next_steps(findings: Findings) -> Iterator[tuple[str, str]]:
    local = next((finding for finding in findings.local if finding.fits_here), None)
    if local is not None:
        yield "the best that is here", local.command
    ready = [finding for finding in findings.hub if finding.is_ready and finding.fits_here]
    best = next((finding for finding in ready if 0 < (finding.bits_per_weight or 0) <= _READY_BITS), None)
    if best is not None:
        yield f"download the best ready-made one, {describe_bytes(best.size_bytes)}, into the Hub's cache", best.command
    for finding in findings.hub:
        smaller = estimated_need(round(finding.size_bytes * _USUAL_SHARE))
        if finding.is_original and findings.memory.fits(smaller) == "yes":
            yield "make your own from the original; you are told the size of the download first", finding.command
            return
