"""What is known about a computer, each fact with where it was read, or why it is not known.

Plain frozen records. Nothing here looks anything up; `detect.py` does. And nothing names the computer's owner: no host
name, no serial number, no path beyond "~".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Fact(Generic[T]):
    """value: None if it is not known; `reason` then says why. source: where it was read ("/proc/meminfo"), or would
    have to be."""

    value: T | None
    source: str
    reason: str = ""


def known(value: T, source: str) -> Fact[T]:
    return Fact(value, source)


def unknown(reason: str, source: str) -> Fact[T]:
    return Fact(None, source, reason)


@dataclass(frozen=True)
class System:
    """name: "Linux 6.12", "macOS 15.1", "Windows 11". container: "Docker", "a container", "WSL 2"; "" outside any."""

    name: Fact[str]
    container: Fact[str]


@dataclass(frozen=True)
class Processor:
    """architecture: "x86_64", "arm64". instruction_sets: those that matter for arithmetic, such as "AVX2". fast_cores:
    of the physical ones, where some are slower. usable_cores: after affinity and a container's quota, so perhaps 1.5.
    cache_bytes: the last level, of one socket."""

    name: Fact[str]
    architecture: Fact[str]
    instruction_sets: Fact[tuple[str, ...]]
    physical_cores: Fact[int]
    logical_cores: Fact[int]
    fast_cores: Fact[int]
    usable_cores: Fact[float]
    cache_bytes: Fact[int]


@dataclass(frozen=True)
class Memory:
    """total_bytes: what this process may use: the limit of a container, if there is one. installed_bytes: what the
    machine has. available_bytes: what programs could take now without swapping. unified: the GPU shares the memory."""

    total_bytes: Fact[int]
    installed_bytes: Fact[int]
    limit_bytes: Fact[int]
    available_bytes: Fact[int]
    swap_total_bytes: Fact[int]
    swap_free_bytes: Fact[int]
    unified: Fact[bool]


@dataclass(frozen=True)
class Disk:
    """The disk where models would be kept. kind: "NVMe SSD", "SSD", "hard disk", "network"."""

    kind: Fact[str]
    filesystem: Fact[str]
    total_bytes: Fact[int]
    free_bytes: Fact[int]


@dataclass(frozen=True)
class Gpu:
    """vendor: "NVIDIA", "AMD", "Intel", "Apple". memory_bytes: its own; where `shared`, what it may take of the main
    memory. compute: "8.9" (compute capability), "gfx1100", "Metal 3"."""

    vendor: str
    name: Fact[str]
    memory_bytes: Fact[int]
    free_bytes: Fact[int]
    shared: Fact[bool]
    compute: Fact[str]
    driver: Fact[str]


@dataclass(frozen=True)
class Power:
    """source: "mains" or "battery"; mains where there is no battery."""

    source: Fact[str]
    battery_percent: Fact[int]


@dataclass(frozen=True)
class Load:
    """busy_cores: how many other programs keep busy now. temperature_celsius: of the processor's hottest sensor.
    throttled: the processor is slowed down because of heat or power."""

    busy_cores: Fact[float]
    temperature_celsius: Fact[float]
    throttled: Fact[bool]


@dataclass(frozen=True)
class EngineFound:
    """A program that runs models. where: "built in", "~/bin/llama-server". details: devices, instruction sets."""

    name: str
    where: str
    version: Fact[str]
    details: Fact[tuple[str, ...]]


@dataclass(frozen=True)
class CacheFound:
    """A folder where models are kept. where: with "~" for the home folder."""

    name: str
    where: str
    size_bytes: Fact[int]


@dataclass(frozen=True)
class Facts:
    system: System
    processor: Processor
    memory: Memory
    disk: Disk
    gpus: tuple[Gpu, ...]
    power: Power
    load: Load
    engines: tuple[EngineFound, ...]
    caches: tuple[CacheFound, ...]
    notes: tuple[str, ...] = ()
    """Sentences about what is half there: a GPU without a driver, a driver that does not answer."""


BUILT_IN = "llama.cpp, built in"  # among the engines


def engine_devices(facts: Facts) -> tuple[str, ...] | None:
    """Return the GPUs that the built-in llama.cpp computes on; None if it was not asked, or does not say."""
    details = next((engine.details.value for engine in facts.engines if engine.name == BUILT_IN), None)
    return None if details is None else tuple(each.removeprefix("GPU: ") for each in details if each[:5] == "GPU: ")
