"""Axes: where a value lies between two ends, and where the ticks are.

Losses differ by factors, so their axis is logarithmic. It has no zero: what lies below its end, such as a file that
equals its original, is drawn at the end, and the number beside it tells the value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from thriftbit.report.verdict import LOSS_SCALE
from thriftbit.sizes import UNITS

_NICE = (1, 2, 2.5, 5)
_MARGIN_DECADES = 0.2


@dataclass(frozen=True)
class LogScale:
    """low, high: the ends, positive"""

    low: float
    high: float

    @classmethod
    def around(cls, values: Iterable[float], least: float, most: float) -> LogScale:
        """Return a scale with a margin. It spans at least a decade, and values outside of `least` to `most` do not
        widen it."""
        clamped = [min(max(value, least), most) for value in values]
        low, high = math.log10(min(clamped)) - _MARGIN_DECADES, math.log10(max(clamped)) + _MARGIN_DECADES
        missing = max(1 - (high - low), 0) / 2
        return cls(10 ** (low - missing), 10 ** (high + missing))

    def place(self, value: float) -> float:
        """Return 0 at the low end, 1 at the high end; never outside."""
        if value <= self.low:
            return 0.0
        return min(math.log10(value / self.low) / math.log10(self.high / self.low), 1.0)

    def ticks(self) -> list[float]:
        """Return where the words of the loss scale change, and the powers of ten beyond."""
        steps = [limit for _, limit in LOSS_SCALE[:-1]]
        exponents = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
        beyond = [10.0**exponent for exponent in exponents if not steps[0] <= 10.0**exponent <= steps[-1]]
        return sorted(limit for limit in (*steps, *beyond) if self.low <= limit <= self.high)

    def bands(self) -> list[tuple[str, float, float]]:
        """Return (word, place where it begins, place where it ends) for each step of the loss scale within."""
        steps = []
        begin = 0.0
        for word, limit in LOSS_SCALE:
            end = self.place(limit) if limit < self.high else 1.0
            if end > begin:
                steps.append((word, begin, end))
            begin = end
        return steps


def nice_ticks(low: float, high: float, most: int) -> list[float]:
    """Return up to `most` round numbers between low and high, evenly spaced."""
    span = (high - low) or abs(high) or 1.0
    magnitude = 10 ** math.floor(math.log10(span / most))
    for step in (nice * magnitude * power for power in (1, 10) for nice in _NICE):
        first, last = math.ceil(low / step), math.floor(high / step)
        if last - first < most:
            return [number * step for number in range(first, last + 1)]
    return []


def size_tick(size_bytes: float) -> str:
    """Return "1.5 GB", "800 MB": as few digits as a round number needs."""
    unit = min(int(math.log10(max(size_bytes, 1)) / 3 + 1e-9), len(UNITS) - 1)
    return f"{size_bytes / 1000**unit:.4g} {UNITS[unit]}"
