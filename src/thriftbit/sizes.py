"""Sizes and counts as people read them, to three significant digits. Decimal units, as disks and the Hub use them."""

from collections.abc import Sequence

UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")
COUNT_UNITS = ("", "k", "M", "B", "T")


def describe_bytes(size_bytes: int) -> str:
    """-> "812 bytes", "4.10 kB", "4.13 GB\""""
    return _scaled(size_bytes, UNITS)


def describe_count(count: int) -> str:
    """-> "812", "141 k", "28.3 M", "8.03 B": B for billions, as models are named"""
    return _scaled(count, COUNT_UNITS).rstrip()


def _scaled(number: float, units: Sequence[str]) -> str:
    unit = 0
    while number >= 999.5 and unit < len(units) - 1:
        number, unit = number / 1000, unit + 1
    digits = 0 if unit == 0 or number >= 99.95 else 1 if number >= 9.995 else 2
    return f"{number:.{digits}f} {units[unit]}"
