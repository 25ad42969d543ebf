from __future__ import annotations

from dataclasses import dataclass

import pytest

from thriftbit.measurement import schedule
from thriftbit.measurement.schedule import Schedule
from thriftbit.measurement.scores import Passage


@dataclass(frozen=True)
class Text:
    units: int
    unit_tokens: float
    name: str = "text"

    def unit(self, number: int) -> list[Passage]:
        raise AssertionError("rounds only count")


class Clock:
    """Computing takes `fixed` seconds a round and `per_token` each."""

    def __init__(self, fixed: float, per_token: float) -> None:
        self.now, self.fixed, self.per_token = 0.0, fixed, per_token

    def monotonic(self) -> float:
        return self.now

    def run(self, plan: Schedule) -> list[list[int]]:
        """Return the units of each round."""
        history = []
        while counts := plan.next():
            history.append(counts)
            tokens = sum(count * text.unit_tokens for count, text in zip(counts, plan.material, strict=True))
            self.now += self.fixed + self.per_token * tokens
            plan.finish()
        return history


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(fixed=4, per_token=0.01)
    monkeypatch.setattr(schedule, "time", clock)
    return clock


def test_without_a_budget_everything_is_taken_once(clock: Clock) -> None:
    history = clock.run(Schedule([Text(50, 512), Text(7, 512), Text(90, 80)], None, 1 << 40, started=0))
    assert [sum(counts) for counts in zip(*history, strict=True)] == [50, 7, 90]
    assert history[0] == [1, 1, 6]  # of short questions as many as make up a window
    assert len(history) < 6


@pytest.mark.parametrize("budget", [60, 300, 3600])
def test_a_budget_is_used_and_hardly_exceeded(clock: Clock, budget: float) -> None:
    clock.run(Schedule([Text(10_000, 512), Text(10_000, 512)], budget, 1 << 40, started=0))
    assert 0.6 * budget < clock.now < 1.1 * budget


def test_a_budget_that_is_too_short_still_gives_one_round(clock: Clock) -> None:
    assert clock.run(Schedule([Text(100, 512)], 0.1, 1 << 40, started=0)) == [[1]]


def test_a_round_keeps_to_the_memory(clock: Clock) -> None:
    history = clock.run(Schedule([Text(100, 512), Text(100, 512)], None, 4096, started=0))
    assert max(512 * sum(counts) for counts in history) <= 4096


def test_nothing_to_measure_on_is_no_round(clock: Clock) -> None:
    assert clock.run(Schedule([], None, 4096, started=0)) == []
