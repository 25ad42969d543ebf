"""Numbers as people read them, with as many digits as they deserve.

Where there is an interval, half its width decides how many digits mean something: 0.0282 (0.0277–0.0287) and 0.31
(0.25–0.37). Without an interval, estimates get two significant digits, and exact counts all of theirs.
"""

from __future__ import annotations

import math

from thriftbit.measurement.measurement import Measurement
from thriftbit.sizes import describe_bytes

MOST_DECIMALS = 6
SMALLEST = 0.5 * 10**-MOST_DECIMALS  # what is less reads as 0
RANGE = "–"


def describe(row: Measurement) -> str:
    """Return the value with its unit, "2.4×", "94.2%", "0.0282"; the row has a value."""
    assert row.value is not None
    return _number(row, row.value)


def describe_interval(row: Measurement) -> str:
    """Return "0.0277–0.0287"; "" where there is no interval, or it is too small to show."""
    if row.low is None or row.high is None:
        return ""
    low, high = _number(row, row.low), _number(row, row.high)
    if low == high:
        return ""
    joint = " to " if "−" in low + high else RANGE
    number, _, unit = low.rpartition(" ")
    if unit and high.endswith(f" {unit}"):
        low = number
    elif low.endswith("%") and high.endswith("%"):
        low = low.removesuffix("%")
    return f"{low}{joint}{high}"


def percent(share: float, decimals: int = 0) -> str:
    return f"{fixed(100 * share, decimals)}%"


def times(ratio: float) -> str:
    """Return "2.4×", "0.31×", "14×"."""
    return f"{significant(ratio, 2)}×"


def significant(value: float, digits: int) -> str:
    """Return the value in plain decimals, without an exponent: "0.028", "1.3", "140"."""
    if abs(value) < SMALLEST:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return fixed(value, min(max(decimals, 0), MOST_DECIMALS))


def fixed(value: float, decimals: int) -> str:
    """Return fixed decimals, with a true minus sign and never "−0.0"."""
    text = f"{abs(value):,.{decimals}f}"
    return f"−{text}" if value < 0 and any(digit in text for digit in "123456789") else text


def _number(row: Measurement, value: float) -> str:
    unit = row.quantity.unit
    if unit == "bytes":
        return describe_bytes(round(value))
    if unit == "ratio":
        return f"{_as_precise_as_known(row, value)}×"
    if unit == "share":
        if row.what == "task_accuracy_difference":
            return f"{'+' if value > 0 else ''}{fixed(100 * value, 1)} points"
        return percent(value, 2 if value > 0.995 or 0 < value < 0.005 else 1)
    if unit == "s":
        return f"{significant(value, 2)} s" if value < 100 else f"{value:,.0f} s"
    if unit in ("tokens/s", "J/token"):
        return f"{significant(value, 3 if value < 1000 else 4)} {unit}"
    return _as_precise_as_known(row, value)


def _as_precise_as_known(row: Measurement, value: float) -> str:
    half_width = (row.high - row.low) / 2 if row.low is not None and row.high is not None else 0.0
    if half_width <= SMALLEST or abs(value) < SMALLEST:
        return significant(value, 3)
    return fixed(value, min(max(-math.floor(math.log10(half_width)), 0), MOST_DECIMALS))
