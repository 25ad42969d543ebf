"""Polite mode: what a computer that others are using can spare for a model, decided from a few readings.

Four decisions, each a plain function of what was read: with how many threads a model starts, and goes on beside other
programs, whether memory has become short, and whether a model that nobody asks anything is unloaded. The rest is done
in the engine's own process: priority and ways of waiting make other programs come first all the time, whatever they
start to do (`polite_process.py`), and threads become fewer and more (`thread_limit.py`). `idle.py` watches.

What cannot be read decides nothing: no battery, no pressure told and no load known is a computer at rest.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import psutil

from thriftbit.errors import ThriftbitError
from thriftbit.machine.facts import Fact, Memory, Power, unknown
from thriftbit.machine.library_facts import library_number, library_power
from thriftbit.machine.linux import linux_memory, linux_power
from thriftbit.machine.surroundings import LiveSurroundings, Surroundings, attempt
from thriftbit.sizes import counted, describe_bytes

UNLOAD_AFTER_MINUTES = 10.0

PRESSURE = "/proc/pressure/memory"
_SHORT_SHARE = 0.05  # of all memory: if less is available, memory is short
_STALLED_PERCENT = 10.0  # if some program waited for memory longer than this, memory is short
_SETTLED_SECONDS = 20.0  # after an answer, before a shortage unloads the model: whoever reads it asks again
_BATTERY_SHARE = 0.5  # of the threads


@dataclass(frozen=True)
class Readings:
    """What the computer does now; None for what cannot be known. stalled_percent: in how much of the last ten seconds
    some program waited for memory."""

    on_battery: bool | None = None
    available_bytes: int | None = None
    total_bytes: int | None = None
    stalled_percent: float | None = None


def read_now(surroundings: Surroundings | None = None) -> Readings:
    """Return the readings of this computer, or of the given surroundings."""
    surroundings = surroundings or LiveSurroundings()
    on_linux = surroundings.system == "Linux"
    memory = linux_memory(surroundings, unknown("not asked", "")) if on_linux else None
    power = linux_power(surroundings) if on_linux else library_power(surroundings)
    return Readings(
        on_battery=_on_battery(power),
        available_bytes=_bytes(surroundings, memory, "available"),
        total_bytes=_bytes(surroundings, memory, "total"),
        stalled_percent=attempt(PRESSURE, lambda: stalled_percent(surroundings.text(PRESSURE))).value,
    )


def stalled_percent(text: str) -> float | None:
    """text: of Linux's /proc/pressure/memory. Returns how much of the
    last ten seconds some program waited for memory."""
    found = re.search(r"^some avg10=(\d{1,3}(?:\.\d+)?) ", text, re.MULTILINE)
    return float(found[1]) if found else None


def spared_threads(threads: int | None) -> int:
    """threads: the number that is fastest when nothing else runs; None for llama.cpp's own choice, the physical cores.
    Returns how many to start with now."""
    return threads_for(threads or physical_cores(), read_now())


def threads_for(threads: int, now: Readings) -> int:
    """Return half of the threads on battery, because the last threads gain least for their power."""
    return math.ceil(_BATTERY_SHARE * threads) if now.on_battery else threads


def threads_beside(threads: int, cores: int, others: float) -> int:
    """threads: how many the model started with. cores: that it may use. others: how many of them other programs keep
    busy. Returns how many threads it goes on with. A shared core is worse than none, as all threads wait for the
    slowest one at every step."""
    return max(1, min(threads, round(cores - others)))


def memory_is_short(now: Readings) -> bool:
    if now.stalled_percent is not None and now.stalled_percent >= _STALLED_PERCENT:
        return True
    if now.available_bytes is None or not now.total_bytes:
        return False
    return now.available_bytes < _SHORT_SHARE * now.total_bytes


def reason_to_unload(idle_seconds: float, unload_after_minutes: float | None, now: Readings) -> str:
    """idle_seconds: since the model was last asked anything. Returns why
    it is unloaded now, in words; "" if it stays."""
    if unload_after_minutes is not None and idle_seconds >= 60 * unload_after_minutes:
        return f"nobody asked it anything for {describe_minutes(unload_after_minutes)}"
    if idle_seconds >= _SETTLED_SECONDS and memory_is_short(now):
        return "memory became short"
    return ""


def check_room(name: str, needed_bytes: int, now: Readings) -> None:
    """For a model that was unloaded, before it is loaded again. needed_bytes: what it took before. Raises
    ThriftbitError if less memory is available: the computer would swap, or kill a program."""
    if now.available_bytes is not None and now.available_bytes < needed_bytes:
        raise ThriftbitError(
            f"{name} was unloaded and takes {describe_bytes(needed_bytes)} of memory, and "
            f"{describe_bytes(now.available_bytes)} are free now. Close other programs, then ask again"
        )


def describe_minutes(minutes: float) -> str:
    if minutes < 1:
        return counted(round(60 * minutes), "second")
    return "a minute" if minutes == 1 else f"{minutes:g} minutes"


def physical_cores() -> int:
    """Return how many physical cores this process may use."""
    allowed = getattr(psutil.Process(), "cpu_affinity", None)  # macOS has none
    usable = len(allowed()) if allowed else psutil.cpu_count() or 1
    return min(psutil.cpu_count(logical=False) or usable, usable)


def _on_battery(power: Power) -> bool | None:
    return None if power.source.value is None else power.source.value == "battery"


def _bytes(surroundings: Surroundings, memory: Memory | None, what: str) -> int | None:
    fact: Fact[int] = (
        getattr(memory, f"{what}_bytes") if memory else library_number(surroundings, f"memory_{what}_bytes")
    )
    return fact.value
