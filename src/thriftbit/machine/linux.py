"""Linux, from /proc and /sys: memory, container, power, load. The processor and GPUs have files of their own."""

from __future__ import annotations

import re
from functools import partial

from thriftbit.machine.cgroups import memory_left, memory_limit
from thriftbit.machine.facts import Fact, Load, Memory, Power, System, known, unknown
from thriftbit.machine.library_facts import busy_cores
from thriftbit.machine.surroundings import Surroundings, attempt, keyed_lines, number, text_or_empty
from thriftbit.machine.unreadable import UnreadableError

MEMINFO = "/proc/meminfo"
SUPPLIES = "/sys/class/power_supply"
SENSORS = "/sys/class/hwmon"
ZONES = "/sys/class/thermal"
PI_THROTTLED = "/sys/devices/platform/soc/soc:firmware/get_throttled"
_PROCESSOR_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal")
_PROCESSOR_ZONES = re.compile(r"x86_pkg_temp|cpu|soc|acpitz", re.IGNORECASE)
_NOW_SLOWED = 0b1110  # Raspberry Pi: frequency capped, throttled, soft limit; the lowest bit is the voltage


def linux_system(surroundings: Surroundings) -> System:
    return System(known(f"Linux {surroundings.release.partition('-')[0]}", "uname"), _container(surroundings))


def linux_memory(surroundings: Surroundings, unified: Fact[bool]) -> Memory:
    installed = _meminfo(surroundings, "MemTotal")
    available = _meminfo(surroundings, "MemAvailable")
    limit = memory_limit(surroundings)
    total = installed
    if limit.value is not None and (installed.value is None or limit.value < installed.value):
        total = limit
        left = memory_left(surroundings)
        if available.value is None or (left.value is not None and left.value < available.value):
            available = left
    return Memory(
        total_bytes=total,
        installed_bytes=installed,
        limit_bytes=limit,
        available_bytes=available,
        swap_total_bytes=_meminfo(surroundings, "SwapTotal"),
        swap_free_bytes=_meminfo(surroundings, "SwapFree"),
        unified=unified,
    )


def linux_power(surroundings: Surroundings) -> Power:
    mains, batteries = [], []
    for name in surroundings.names(SUPPLIES):
        folder = f"{SUPPLIES}/{name}"
        kind = text_or_empty(surroundings, f"{folder}/type").strip()
        if text_or_empty(surroundings, f"{folder}/scope").strip() == "Device":
            continue  # a mouse's or a headset's
        if kind == "Battery":
            batteries.append(folder)
        elif kind in ("Mains", "USB") and text_or_empty(surroundings, f"{folder}/online").strip() == "1":
            mains.append(folder)
    if not batteries:
        if not surroundings.names(SUPPLIES):
            return Power(known("mains", f"{SUPPLIES} shows no battery"), unknown("there is no battery", SUPPLIES))
        return Power(known("mains", SUPPLIES), unknown("there is no battery", SUPPLIES))
    state = text_or_empty(surroundings, f"{batteries[0]}/status").strip()
    percent = attempt(f"{batteries[0]}/capacity", partial(number, surroundings, f"{batteries[0]}/capacity"))
    if mains or state in ("Charging", "Full", "Not charging"):
        return Power(known("mains", (mains or batteries)[0]), percent)
    if state == "Discharging":
        return Power(known("battery", f"{batteries[0]}/status"), percent)
    return Power(unknown("neither the battery nor the mains say", SUPPLIES), percent)


def linux_load(surroundings: Surroundings, logical_cores: int | None) -> Load:
    return Load(busy_cores(surroundings, logical_cores), _temperature(surroundings), _throttled(surroundings))


def _meminfo(surroundings: Surroundings, key: str) -> Fact[int]:
    def read() -> int:
        amount, unit = keyed_lines(surroundings.text(MEMINFO))[key].split()
        if unit != "kB":
            raise ValueError(unit)
        return int(amount) * 1024

    return attempt(MEMINFO, read)


def _container(surroundings: Surroundings) -> Fact[str]:
    if re.search(r"microsoft", surroundings.release, re.IGNORECASE):
        return known("WSL 2" if "WSL2" in surroundings.release else "WSL", "uname")
    for path, name in (("/run/.containerenv", "Podman"), ("/.dockerenv", "Docker")):
        try:
            surroundings.text(path)
            return known(name, path)
        except UnreadableError:
            pass
    groups = text_or_empty(surroundings, "/proc/self/cgroup") + text_or_empty(surroundings, "/proc/1/cgroup")
    for mark, name in (("kubepods", "Kubernetes"), ("/docker", "Docker"), ("/lxc", "LXC")):
        if mark in groups:
            return known(name, "/proc/self/cgroup")
    return known("", "/proc/self/cgroup") if groups else unknown("/proc/self/cgroup is not there", "/proc/self/cgroup")


def _temperature(surroundings: Surroundings) -> Fact[float]:
    def sensors() -> list[float]:
        return [
            number(surroundings, f"{SENSORS}/{sensor}/{name}") / 1000
            for sensor in surroundings.names(SENSORS)
            if text_or_empty(surroundings, f"{SENSORS}/{sensor}/name").strip() in _PROCESSOR_SENSORS
            for name in surroundings.names(f"{SENSORS}/{sensor}")
            if re.fullmatch(r"temp\d+_input", name)
        ]

    def zones() -> list[float]:
        return [
            number(surroundings, f"{ZONES}/{zone}/temp") / 1000
            for zone in surroundings.names(ZONES)
            if _PROCESSOR_ZONES.search(text_or_empty(surroundings, f"{ZONES}/{zone}/type"))
        ]

    for source, read in ((SENSORS, sensors), (ZONES, zones)):
        hottest = attempt(source, lambda read=read: max(read(), default=None), "no sensor of the processor is shown")  # type: ignore[misc]
        if hottest.value is not None:
            return hottest
    return unknown("no sensor of the processor is shown", SENSORS)


def _throttled(surroundings: Surroundings) -> Fact[bool]:
    return attempt(PI_THROTTLED, lambda: bool(int(surroundings.text(PI_THROTTLED), 16) & _NOW_SLOWED))
