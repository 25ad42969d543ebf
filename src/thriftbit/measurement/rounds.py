"""How much text each round of a measurement takes.

The first takes a unit of everything there is to measure on, every further one a few times what came before, so that
reading the weights again costs little beside computing; the last takes what the time that is left allows. The rate is
that of the round before, which was smaller and so slower by the token: a promise of time is rather kept early.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from thriftbit.measurement.material import Material

GROWTH = 3  # tokens of a round, for each token before it


@dataclass
class Rounds:
    """budget_seconds: for all rounds, None for no limit. tokens_in_memory: what a round may not exceed."""

    budget_seconds: float | None
    tokens_in_memory: int
    started: float = field(default_factory=time.monotonic)
    round_started: float = 0.0
    round_tokens: float = 0.0
    done_tokens: float = 0.0
    all_tokens: float = 0.0
    seconds_per_token: float = 0.0

    def next(self, material: Sequence[Material], taken: Sequence[int]) -> list[int] | None:
        """-> units of each material, None when it is over"""
        left = [m.units - done for m, done in zip(material, taken, strict=True)]
        self.all_tokens = sum(m.units * m.unit_tokens for m in material)
        largest = max((m.unit_tokens for m in material), default=0.0)
        share = largest  # of each material: the longest unit's tokens
        if self.done_tokens:
            share = max(share, GROWTH * self.done_tokens / len(material))
        share = min(share, max(largest, self.tokens_in_memory / len(material)))
        counts = [min(max(1, int(share / m.unit_tokens)), units) for m, units in zip(material, left, strict=True)]
        tokens = sum(count * m.unit_tokens for count, m in zip(counts, material, strict=True))
        if self.done_tokens and self.budget_seconds is not None and tokens:
            affordable = (self.budget_seconds - (time.monotonic() - self.started)) / self.seconds_per_token
            if affordable < tokens:
                counts = [int(count * max(0.0, affordable) / tokens) for count in counts]
        self.round_tokens = sum(count * m.unit_tokens for count, m in zip(counts, material, strict=True))
        self.round_started = time.monotonic()
        return counts if any(counts) else None

    def share(self, progress: Callable[[float], None]) -> Callable[[float], None]:
        """-> what turns the share of a round into the share of everything"""

        def told(of_round: float) -> None:
            share = (self.done_tokens + of_round * self.round_tokens) / self.all_tokens
            if self.budget_seconds is not None:
                share = max(share, (time.monotonic() - self.started) / self.budget_seconds)
            progress(min(1.0, share))

        return told

    def finish(self) -> None:
        self.done_tokens += self.round_tokens
        self.seconds_per_token = (time.monotonic() - self.round_started) / self.round_tokens
