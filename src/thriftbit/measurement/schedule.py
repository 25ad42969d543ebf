"""How much text each round of a measurement takes.

The first round takes one unit of each material. Every further round takes a few times as much as all before, so reading
the weights again costs little beside computing. The last round takes what the remaining time allows. The speed is
estimated from the round before, which was smaller and so slower per token: the measurement rather ends early than late.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from thriftbit.measurement.material import Material
from thriftbit.progress import Progress

GROWTH = 3  # tokens of a round, for each token before it


@dataclass
class Schedule:
    """budget_seconds: for all rounds, None for no limit. tokens_in_memory: what a round may not exceed."""

    material: Sequence[Material]
    budget_seconds: float | None
    tokens_in_memory: int
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.taken = [0] * len(self.material)
        self._done_tokens = 0.0
        self._seconds_per_token = 0.0

    def next(self) -> list[int] | None:
        """Return how many further units of each material to take; None when the measurement is over."""
        counts = self._wanted()
        if self._done_tokens and self.budget_seconds is not None and any(counts):
            affordable = max(0.0, self.budget_seconds - self._elapsed()) / self._seconds_per_token
            tokens = self._tokens(counts)
            counts = [int(count * min(1.0, affordable / tokens)) for count in counts]
        if not any(counts):
            return None
        self._counts, self._round_started = counts, time.monotonic()
        return counts

    def finish(self) -> None:
        """To be called when the units of a round are measured."""
        tokens = self._tokens(self._counts)
        self.taken = [taken + count for taken, count in zip(self.taken, self._counts, strict=True)]
        self._done_tokens += tokens
        self._seconds_per_token = (time.monotonic() - self._round_started) / tokens

    def progress_of_round(self, progress: Progress) -> Progress:
        """Return the progress of a round, as a part of everything."""
        everything = sum(what.units * what.unit_tokens for what in self.material)

        def report(what: str, of_round: float) -> None:
            share = (self._done_tokens + of_round * self._tokens(self._counts)) / everything
            if self.budget_seconds is not None:
                share = max(share, min(0.99, self._elapsed() / self.budget_seconds))
            progress(what, share)

        return report

    def _wanted(self) -> list[int]:
        """Return the units that a round would take if time did not matter: about as many tokens of each material."""
        if not self.material:
            return []
        longest = max(what.unit_tokens for what in self.material)
        fitting = self.tokens_in_memory / len(self.material)
        tokens = max(longest, min(GROWTH * self._done_tokens / len(self.material), fitting))
        return [
            min(max(1, int(tokens / what.unit_tokens)), what.units - taken)
            for what, taken in zip(self.material, self.taken, strict=True)
        ]

    def _tokens(self, counts: Sequence[int]) -> float:
        return sum(count * what.unit_tokens for count, what in zip(counts, self.material, strict=True))

    def _elapsed(self) -> float:
        return time.monotonic() - self.started
