"""macOS: psutil for memory, cores and battery; sysctl, system_profiler and pmset for the rest.

On Apple silicon the GPU shares the memory. The system decides how much the GPU may take. If somebody set it by hand,
sysctl says so; otherwise llama.cpp knows it when it runs.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from thriftbit.machine.facts import Fact, Gpu, Load, Memory, Power, Processor, System, known, unknown
from thriftbit.machine.instruction_sets import instruction_sets
from thriftbit.machine.library_facts import busy_cores, library_number, library_power
from thriftbit.machine.surroundings import Surroundings, attempt, first_known, json_output, keyed_lines

DISPLAYS = ("system_profiler", "SPDisplaysDataType", "-json")
_GB, _MB = 1 << 30, 1 << 20


def macos_system(surroundings: Surroundings) -> System:
    version = attempt("sw_vers", lambda: f"macOS {surroundings.output('sw_vers', '-productVersion').strip()}")
    return System(version, known("", "macOS has no containers"))


def macos_processor(surroundings: Surroundings) -> Processor:
    logical: Fact[int] = library_number(surroundings, "logical_cores")
    return Processor(
        name=_sysctl(surroundings, "machdep.cpu.brand_string"),
        architecture=known(surroundings.architecture, "uname"),
        instruction_sets=attempt("sysctl", partial(_instruction_sets, surroundings), "no features there"),
        physical_cores=library_number(surroundings, "physical_cores"),
        logical_cores=logical,
        fast_cores=attempt(
            "sysctl hw.perflevel0.physicalcpu",
            lambda: int(_sysctls(surroundings)["hw.perflevel0.physicalcpu"]),
        ),
        usable_cores=Fact(None if logical.value is None else float(logical.value), logical.source, logical.reason),
        cache_bytes=attempt("sysctl", partial(_cache_bytes, surroundings), "no cache is told"),
    )


def macos_memory(surroundings: Surroundings) -> Memory:
    total = library_number(surroundings, "memory_total_bytes")
    return Memory(
        total_bytes=total,
        installed_bytes=total,
        limit_bytes=unknown("no limit is set", "macOS has no containers"),
        available_bytes=library_number(surroundings, "memory_available_bytes"),
        swap_total_bytes=library_number(surroundings, "swap_total_bytes"),
        swap_free_bytes=library_number(surroundings, "swap_free_bytes"),
        unified=known(surroundings.architecture == "arm64", "uname"),
    )


def macos_gpus(surroundings: Surroundings) -> list[Gpu]:
    listed = attempt("system_profiler", lambda: json_output(surroundings, *DISPLAYS)["SPDisplaysDataType"])
    if not isinstance(listed.value, list):
        return []
    gpus = []
    for entry in listed.value:
        gpu = attempt("system_profiler", partial(_gpu, surroundings, entry))
        if gpu.value is not None:
            gpus.append(gpu.value)
    return gpus


def macos_power(surroundings: Surroundings) -> Power:
    return library_power(surroundings)


def macos_load(surroundings: Surroundings, logical_cores: int | None) -> Load:
    def throttled() -> bool:
        limits = re.findall(
            r"(?:CPU_Speed_Limit|CPU_Scheduler_Limit)\s*=\s*(\d+)", surroundings.output("pmset", "-g", "therm")
        )
        if limits:
            return min(map(int, limits)) < 100
        return not re.search(
            r"no thermal warning level has been recorded", surroundings.output("pmset", "-g", "therm"), re.I
        )

    return Load(
        busy_cores=busy_cores(surroundings, logical_cores),
        temperature_celsius=unknown("macOS tells only root", "powermetrics"),
        throttled=attempt("pmset -g therm", throttled),
    )


def _sysctls(surroundings: Surroundings) -> dict[str, str]:
    return keyed_lines(surroundings.output("sysctl", "-a"))


def _sysctl(surroundings: Surroundings, key: str) -> Fact[str]:
    return attempt(f"sysctl {key}", lambda: _sysctls(surroundings)[key])


def _instruction_sets(surroundings: Surroundings) -> tuple[str, ...] | None:
    values = _sysctls(surroundings)
    flags = [key.rpartition(".")[2] for key, value in values.items() if key.startswith("hw.optional.") and value == "1"]
    for key in ("machdep.cpu.features", "machdep.cpu.leaf7_features"):
        flags += values.get(key, "").split()
    return instruction_sets(flags) if flags else None


def _cache_bytes(surroundings: Surroundings) -> int | None:
    values = _sysctls(surroundings)
    sizes = (values.get(key, "0") for key in ("hw.l3cachesize", "hw.perflevel0.l2cachesize", "hw.l2cachesize"))
    return next((int(size) for size in sizes if size.isdigit() and int(size)), None)


def _gpu(surroundings: Surroundings, entry: dict[str, Any]) -> Gpu:
    name = str(entry.get("sppci_model") or entry["_name"])
    vendor = next(
        (known for known in ("Apple", "AMD", "Intel", "NVIDIA") if known in f"{entry.get('spdisplays_vendor')} {name}"),
        "",
    )
    cores = entry.get("sppci_cores")
    own = _size(entry.get("spdisplays_vram") or entry.get("_spdisplays_vram"))
    shared = vendor == "Apple" or "spdisplays_vram_shared" in entry
    memory: Fact[int] = known(own, "system_profiler") if own and not shared else _gpu_limit(surroundings)
    metal = str(entry.get("spdisplays_mtlgpufamilysupport") or entry.get("spdisplays_metal") or "")
    family = re.search(r"metal(?:featuresetfamily)?(\d)", metal)
    return Gpu(
        vendor=vendor,
        name=known(f"{name} ({cores} cores)" if cores else name, "system_profiler"),
        memory_bytes=memory,
        free_bytes=unknown("it shares the main memory" if shared else "macOS does not say", "system_profiler"),
        shared=known(shared, "system_profiler"),
        compute=known(f"Metal {family[1]}", "system_profiler") if family else unknown("not said", "system_profiler"),
        driver=unknown("it is part of macOS", "system_profiler"),
    )


def _gpu_limit(surroundings: Surroundings) -> Fact[int]:
    key = "iogpu.wired_limit_mb"
    set_by_hand = attempt(f"sysctl {key}", lambda: int(_sysctls(surroundings)[key]) * _MB or None)
    reason = "macOS decides how much of the main memory it may take; llama.cpp says when it runs"
    return (
        first_known(set_by_hand, unknown(reason, f"sysctl {key}"))
        if set_by_hand.value
        else unknown(reason, f"sysctl {key}")
    )


def _size(text: Any) -> int | None:
    found = re.fullmatch(r"(\d+) (MB|GB)", str(text))
    return int(found[1]) * (_GB if found[2] == "GB" else _MB) if found else None
