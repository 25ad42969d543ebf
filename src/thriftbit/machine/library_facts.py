"""Facts from psutil's answers, for the systems where psutil is asked first: macOS and Windows."""

from __future__ import annotations

from thriftbit.machine.facts import Fact, Power, known, unknown
from thriftbit.machine.surroundings import Surroundings, attempt

SOURCE = "psutil"


def library_number(surroundings: Surroundings, key: str) -> Fact[int]:
    return attempt(SOURCE, lambda: surroundings.answer("psutil")[key])


def library_power(surroundings: Surroundings) -> Power:
    percent: Fact[int] = attempt(
        SOURCE, lambda: surroundings.answer("psutil")["battery_percent"], "there is no battery"
    )
    plugged: Fact[bool] = attempt(SOURCE, lambda: surroundings.answer("psutil")["power_plugged"])
    if percent.value is None:
        no_battery = percent.reason == "there is no battery"
        return Power(known("mains", SOURCE) if no_battery else unknown(percent.reason, SOURCE), percent)
    if plugged.value is None:
        return Power(unknown("the battery does not say whether it is charged", SOURCE), percent)
    return Power(known("mains" if plugged.value else "battery", SOURCE), percent)


def busy_cores(surroundings: Surroundings, logical_cores: int | None) -> Fact[float]:
    """Return how many cores programs keep busy now."""
    return attempt(
        SOURCE,
        lambda: None if logical_cores is None else float(surroundings.answer("psutil")["busy_share"]) * logical_cores,
        "the number of cores is not known",
    )
