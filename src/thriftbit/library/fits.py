"""Whether a model fits the memory of this computer, in three words.

What a GGUF takes while it runs is counted from its header, with room for a conversation of 4,096 tokens
(`machine/memory_needed.py`). Where only a size is known, on the Hub or for a folder of safetensors, a tenth and half a
gigabyte are added, which covers the common families at that length; `thriftbit fit MODEL` tells it exactly, at any
length and with a graphics card.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from thriftbit.machine.detect import facts_of
from thriftbit.machine.facts import Fact, Facts, unknown
from thriftbit.machine.surroundings import LiveSurroundings

Fits = Literal["yes", "tight", "no", "unknown"]

CONTEXT_TOKENS = 4096
_ROOM_SHARE, _ROOM_BYTES = 0.1, 500_000_000
_SYSTEM_BYTES = 1_500_000_000  # what an idle system and a browser keep
_LEFT_BYTES = 500_000_000  # of what is free now, so that nothing else comes to a stop


@dataclass(frozen=True)
class Memory:
    """free_bytes: what programs can take now, main memory or that of a graphics card, whichever is larger. most_bytes:
    when other programs are closed. None where it cannot be told."""

    free_bytes: int | None
    most_bytes: int | None

    def fits(self, needed_bytes: int | None) -> Fits:
        """-> "tight": only when other programs are closed"""
        if needed_bytes is None or self.free_bytes is None or self.most_bytes is None:
            return "unknown"
        if needed_bytes <= self.free_bytes:
            return "yes"
        return "tight" if needed_bytes <= self.most_bytes else "no"


def memory_here() -> Memory:
    nowhere: Fact[int] = unknown("is not asked for", "")
    return memory_of(facts_of(LiveSurroundings(), "", nowhere, nowhere))


def memory_of(facts: Facts) -> Memory:
    total, free = facts.memory.total_bytes.value, facts.memory.available_bytes.value
    cards = [0 if gpu.shared.value else gpu.memory_bytes.value or 0 for gpu in facts.gpus]
    free_cards = [0 if gpu.shared.value else gpu.free_bytes.value or 0 for gpu in facts.gpus]
    if total is None or free is None:
        return Memory(max(free_cards, default=0) or None, max(cards, default=0) or None)
    most = total - min(_SYSTEM_BYTES, total // 4)
    free = min(free - _LEFT_BYTES, most)
    return Memory(max(free, *free_cards, 0), max(most, *cards, 0))


def estimated_need(size_bytes: int) -> int:
    """-> what running weights of that size takes, about"""
    return round(size_bytes * (1 + _ROOM_SHARE)) + _ROOM_BYTES
