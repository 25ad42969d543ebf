"""Sizes, counts and times as people read them, to three digits. Decimal units, as disks and the Hub use them."""

from collections.abc import Sequence

UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")
COUNT_UNITS = ("", "k", "M", "B", "T")


def describe_bytes(size_bytes: int) -> str:
    """Return "812 bytes", "4.10 kB", "4.13 GB"."""
    return _scaled(size_bytes, UNITS)


def describe_count(count: int) -> str:
    """Return "812", "141 k", "28.3 M", "8.03 B": B for billions, as models are named."""
    return _scaled(count, COUNT_UNITS).rstrip()


def describe_seconds(seconds: float) -> str:
    """Return "1 second", "40 seconds", "7 minutes", "1.5 hours": as rough as an estimate is."""
    if round(seconds) < 60:
        return counted(max(1, round(seconds)), "second")
    minutes = round(seconds / 60)
    return counted(minutes, "minute") if minutes < 90 else f"{seconds / 3600:.2g} hours"


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return "1 thread", "4 threads", "1,024 threads"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def _scaled(number: float, units: Sequence[str]) -> str:
    unit = 0
    while number >= 999.5 and unit < len(units) - 1:
        number, unit = number / 1000, unit + 1
    digits = 0 if unit == 0 or number >= 99.95 else 1 if number >= 9.995 else 2
    return f"{number:.{digits}f} {units[unit]}"
