"""Sizes as people read them. Decimal units, as disks and the Hub use them."""

UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def describe_bytes(size_bytes: int) -> str:
    """-> "812 bytes", "4.10 kB", "28.0 GB": three significant digits"""
    size, unit = float(size_bytes), 0
    while size >= 999.5 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    digits = 0 if unit == 0 or size >= 99.95 else 1 if size >= 9.995 else 2
    return f"{size:.{digits}f} {UNITS[unit]}"
