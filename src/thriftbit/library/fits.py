"""Whether a model fits the memory of this computer, in three words.

What a GGUF takes while it runs is counted from its header, with room for a conversation of 4,096 tokens
(`machine/memory_needed.py`). Where only a size is known, on the Hub or for a folder of safetensors, a tenth and half a
gigabyte are added, which covers the common families at that length; `thriftbit fit MODEL` tells it exactly, at any
length and with a graphics card.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Literal

from thriftbit.machine.detect import facts_of
from thriftbit.machine.facts import Fact, Facts, unknown
from thriftbit.machine.surroundings import LiveSurroundings

Fits = Literal["yes", "tight", "no", "needs a GPU", "needs a Mac", "unknown"]

CONTEXT_TOKENS = 4096
_ROOM_SHARE, _ROOM_BYTES = 0.1, 500_000_000
_SYSTEM_BYTES = 1_500_000_000  # what an idle system and a browser keep
_LEFT_BYTES = 500_000_000  # of what is free now, so that nothing else comes to a stop


@dataclass(frozen=True)
class Memory:
    """free_bytes: what programs can take now, main memory or that of a graphics card, whichever is larger. most_bytes:
    when other programs are closed. None where it cannot be told. card_free_bytes, card_most_bytes: of a graphics card
    alone, 0 without one. is_mac: one with Apple's own processor."""

    free_bytes: int | None
    most_bytes: int | None
    card_free_bytes: int = 0
    card_most_bytes: int = 0
    is_mac: bool = False

    def fits(self, needed_bytes: int | None, needs: str | None = None) -> Fits:
        """needs: "GPU" or "Mac", for what runs on nothing else. -> "tight": only when other programs are closed"""
        free, most = self.free_bytes, self.most_bytes
        if needs == "Mac" and not self.is_mac:
            return "needs a Mac"
        if needs == "GPU":
            if not self.card_most_bytes:
                return "needs a GPU"
            free, most = self.card_free_bytes, self.card_most_bytes
        if needed_bytes is None or free is None or most is None:
            return "unknown"
        if needed_bytes <= free:
            return "yes"
        return "tight" if needed_bytes <= most else "no"


def memory_here() -> Memory:
    nowhere: Fact[int] = unknown("is not asked for", "")
    return memory_of(facts_of(LiveSurroundings(), "", nowhere, nowhere))


def memory_of(facts: Facts) -> Memory:
    total, free = facts.memory.total_bytes.value, facts.memory.available_bytes.value
    cards = [0 if gpu.shared.value else gpu.memory_bytes.value or 0 for gpu in facts.gpus]
    free_cards = [0 if gpu.shared.value else gpu.free_bytes.value or 0 for gpu in facts.gpus]
    card, free_card = max(cards, default=0), max(free_cards, default=0)
    is_mac = platform.system() == "Darwin" and platform.machine() == "arm64"
    if total is None or free is None:
        return Memory(free_card or None, card or None, free_card, card, is_mac)
    most = total - min(_SYSTEM_BYTES, total // 4)
    free = max(0, min(free - _LEFT_BYTES, most))
    return Memory(max(free, free_card), max(most, card), free_card, card, is_mac)


def estimated_need(size_bytes: int) -> int:
    """-> what running weights of that size takes, about"""
    return round(size_bytes * (1 + _ROOM_SHARE)) + _ROOM_BYTES
