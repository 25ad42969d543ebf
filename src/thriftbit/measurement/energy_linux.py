"""Linux's energy counters, files below /sys: RAPL, which counts for the processor, and the battery.

RAPL (Intel since Sandy Bridge, AMD since Zen) counts microjoules. It starts again at zero when its range is full, which
takes minutes under load. Its zone "package" contains "core" and "uncore"; "dram" is separate; "psys", where it exists,
contains all of them and more; `intel-rapl-mmio` shows a package a second time. So only packages and dram are added.
Since 2020 only root may read RAPL, because the counter betrays what the processor computes.

A battery counts in steps of about ten milliwatt-hours and changes a few times a minute. So it must run for a minute to
say anything, and what it says is about the whole computer. Its momentary power (power_now) is left out, because the
gauge averages it over an unknown time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from thriftbit.errors import ThriftbitError

SYSFS = Path("/sys")
_MICRO = 1e-6
_SECONDS_PER_HOUR = 3600


class Rapl:
    shortest_seconds = 0.2  # the counter moves every millisecond

    def __init__(self, root: Path = SYSFS) -> None:
        self._folder = root / "class" / "powercap"

    def covers(self) -> str:
        memory = any(_text(zone / "name") == "dram" for zone in self._zones())
        return "the processor and memory (RAPL)" if memory else "the processor (RAPL)"

    def available(self) -> str:
        zones = self._zones()
        if not zones:
            return "the kernel shows no energy counter of the processor (virtual machines rarely have one)"
        try:
            for zone in zones:
                _number(zone / "energy_uj")
        except PermissionError:
            return (
                "only root may read the processor's energy counter; to permit it until the next start: "
                f"sudo chmod a+r {self._folder}/intel-rapl:*/energy_uj"
            )
        except (OSError, ValueError) as error:
            return f"the processor's energy counter cannot be read: {error}"
        return ""

    def start(self) -> None:
        self._before = self._read()

    def stop(self) -> float:
        microjoules = 0
        for zone, after in self._read().items():
            used = after - self._before[zone]
            microjoules += used if used >= 0 else used + _number(zone / "max_energy_range_uj")
        if not microjoules:
            raise ThriftbitError("the processor's energy counter stands still")
        return microjoules * _MICRO

    def _zones(self) -> list[Path]:
        zones = sorted(self._folder.glob("intel-rapl:*"))
        return [zone for zone in zones if _text(zone / "name").startswith(("package", "dram"))]

    def _read(self) -> dict[Path, int]:
        try:
            return {zone: _number(zone / "energy_uj") for zone in self._zones()}
        except (OSError, ValueError) as error:
            raise ThriftbitError(f"the processor's energy counter cannot be read: {error}") from None


class Battery:
    shortest_seconds = 60.0

    def __init__(self, root: Path = SYSFS) -> None:
        self._folder = root / "class" / "power_supply"

    def covers(self) -> str:
        return "the whole computer (battery)"

    def available(self) -> str:
        batteries = self._batteries()
        if not batteries:
            return "there is no battery"
        if not any(_text(battery / "status") == "Discharging" for battery in batteries):
            return "the battery is not discharging; unplug the computer to measure by it"
        try:
            for battery in batteries:
                _charge(battery)
        except (OSError, ValueError):
            return "the battery does not tell its charge"
        return ""

    def start(self) -> None:
        self._before = self._read()

    def stop(self) -> float:
        joules = sum(
            (before.amount - after.amount) * (before.volts + after.volts) / 2
            for before, after in zip(self._before, self._read(), strict=True)
        )
        if joules <= 0:
            raise ThriftbitError("the battery was charged meanwhile, or counts too coarsely")
        return joules

    def _batteries(self) -> list[Path]:
        """Return the computer's own: a mouse has a battery too."""
        supplies = sorted(self._folder.glob("*"))
        return [each for each in supplies if _text(each / "type") == "Battery" and _text(each / "scope") != "Device"]

    def _read(self) -> list[_Charge]:
        if reason := self.available():
            raise ThriftbitError(reason)
        return [_charge(battery) for battery in self._batteries()]


@dataclass(frozen=True)
class _Charge:
    """amount: joules, with 1 for volts; or coulombs, with the voltage"""

    amount: float
    volts: float


def _charge(battery: Path) -> _Charge:
    if (battery / "energy_now").exists():
        return _Charge(_number(battery / "energy_now") * _MICRO * _SECONDS_PER_HOUR, 1.0)
    coulombs = _number(battery / "charge_now") * _MICRO * _SECONDS_PER_HOUR
    return _Charge(coulombs, _number(battery / "voltage_now") * _MICRO)


def _number(file: Path) -> int:
    return int(file.read_text())


def _text(file: Path) -> str:
    """Return "" where there is no such file, or it is not ours to read."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""
