"""A number that nobody measured, with how far it may be off and why."""

from __future__ import annotations

from dataclasses import dataclass

from thriftbit.machine.profile import Spread


@dataclass(frozen=True)
class Prediction:
    """value: None where nothing can be said; `reason` then says why. low, high: the truth lies between them nine times
    in ten; equal to the value if it was counted. reason: a sentence on what the prediction rests on."""

    value: float | None
    low: float | None
    high: float | None
    reason: str

    @property
    def is_exact(self) -> bool:
        return self.value is not None and self.low == self.value == self.high

    def scaled(self, factor: float) -> Prediction:
        value, low, high = (None if n is None else factor * n for n in (self.value, self.low, self.high))
        return Prediction(value, low, high, self.reason)


def exact(value: float, reason: str) -> Prediction:
    return Prediction(value, value, value, reason)


def unknown(reason: str) -> Prediction:
    return Prediction(None, None, None, reason)


def widened(spread: Spread, low: float, high: float) -> Spread:
    """Return the spread with its ends moved apart by these factors."""
    return Spread(spread.median, spread.low * low, spread.high * high)
