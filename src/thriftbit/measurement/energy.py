"""How much energy was used between two moments, by whatever counter this computer has.

A meter is started and stopped. It counts the energy of everything that ran meanwhile, idle power included. Counters
differ in what they cover (the processor, the GPU, the whole computer) and in how long they must run before their number
means something; each counter says both. Where no counter can be read, the reason says what would help.

Left out: power plugs and other devices outside of the computer; Windows, which shows ordinary programs no counter.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from thriftbit.errors import ThriftbitError
from thriftbit.machine.nvidia import gpu_energy_joules
from thriftbit.measurement.energy_apple import PowerMetrics
from thriftbit.measurement.energy_linux import SYSFS, Battery, Rapl

T = TypeVar("T")
_NOT_MEASURABLE = "not measurable here"


class EnergyMeter(Protocol):
    """shortest_seconds: how long the counter must run at least, so that its steps do not show."""

    shortest_seconds: float

    def covers(self) -> str:
        """Return whose energy it is, for people."""

    def available(self) -> str:
        """Return why it cannot be used here and what would help, "" if it can."""

    def start(self) -> None: ...

    def stop(self) -> float:
        """Return joules since `start`. Raises ThriftbitError if it could not be counted after all."""


class NvidiaGPU:
    """NVIDIA's driver counts the energy of the GPUs, since Volta."""

    shortest_seconds = 0.5  # the counter moves every 20 to 100 ms

    def covers(self) -> str:
        return "the GPU (NVML)"

    def available(self) -> str:
        try:
            gpu_energy_joules()
        except ThriftbitError as error:
            return str(error)
        return ""

    def start(self) -> None:
        self._before = gpu_energy_joules()

    def stop(self) -> float:
        return gpu_energy_joules() - self._before


class Together:
    """Meters of different parts of the computer, added."""

    def __init__(self, meters: Sequence[EnergyMeter]) -> None:
        self._meters = meters
        self.shortest_seconds = max(meter.shortest_seconds for meter in meters)

    def covers(self) -> str:
        return " and ".join(meter.covers() for meter in self._meters)

    def available(self) -> str:
        return "; ".join(filter(None, (meter.available() for meter in self._meters)))

    def start(self) -> None:
        for meter in self._meters:
            meter.start()

    def stop(self) -> float:
        return sum(meter.stop() for meter in self._meters)


def metered(meter: EnergyMeter, work: Callable[[float], T]) -> tuple[T, float | str]:
    """Return what `work` gives, and the joules that were used meanwhile or why they could not be counted.

    work: is given the seconds that it should last at least.
    """
    try:
        meter.start()
    except ThriftbitError as error:
        return work(0.0), f"{_NOT_MEASURABLE}: {error}"
    try:
        result = work(meter.shortest_seconds)
    except BaseException:
        with contextlib.suppress(ThriftbitError):
            meter.stop()  # it may have a program running
        raise
    try:
        return result, meter.stop()
    except ThriftbitError as error:
        return result, f"{_NOT_MEASURABLE}: {error}"


def find_meter(*, uses_gpu: bool, root: Path = SYSFS, platform: str = sys.platform) -> EnergyMeter:
    """Return the best meter for what llama.cpp does here.

    uses_gpu: whether llama.cpp computes on a GPU. root: of Linux's sysfs. Raises ThriftbitError, "not measurable here:
    ...", with the reason why each possible counter cannot be used.
    """
    reasons: list[str] = []
    for meter in _meters(uses_gpu, root, platform):
        reason = meter.available()
        if not reason:
            return meter
        reasons += reason.split("; ")
    if not reasons:
        reasons = [f"no energy counter is known for {platform}"]
    raise ThriftbitError(f"{_NOT_MEASURABLE}: {'; '.join(dict.fromkeys(reasons))}")


def _meters(uses_gpu: bool, root: Path, platform: str) -> Iterator[EnergyMeter]:
    """Return what could measure, the best first."""
    if platform == "darwin":
        yield PowerMetrics()  # processor and GPU in one
    elif platform == "linux":
        yield Together([Rapl(root), NvidiaGPU()]) if uses_gpu else Rapl(root)
        yield Battery(root)
    if uses_gpu and platform != "darwin":
        yield NvidiaGPU()  # the processor's share is missing, and the row says so
