"""How far something long is: one type for whatever takes time and whoever shows it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float], None]
"""Called with what is being done, and the fraction of all the work that is done, from 0 to 1."""


def no_progress(what: str, fraction: float) -> None:
    """Shows nothing"""


def part_of(progress: Progress, start: float, stop: float, what: str = "") -> Progress:
    """Return the progress of a part of the work: its 0 to 1 are `start` to `stop` of the whole. what: said in place of
    the part's own words."""

    def report(own: str, fraction: float) -> None:
        progress(what or own, start + (stop - start) * fraction)

    return report
