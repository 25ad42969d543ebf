"""The processor, as Linux describes it in /proc/cpuinfo and /sys/devices/system/cpu.

/proc/cpuinfo depends on the architecture: x86 has a name and flags, ARM has numbers in place of a name, RISC-V an
"isa", POWER a "cpu". /sys/devices/system/cpu is the same everywhere, if a container shows it.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import partial

from thriftbit.machine.cgroups import core_quota
from thriftbit.machine.facts import Fact, Processor, known, unknown
from thriftbit.machine.instruction_sets import instruction_sets
from thriftbit.machine.surroundings import (
    Surroundings,
    attempt,
    cpu_list,
    first_known,
    keyed_lines,
    number_or_none,
    text_or_empty,
    unique,
)

CPUINFO = "/proc/cpuinfo"
CPUS = "/sys/devices/system/cpu"
_SLOWER = 0.8  # of the fastest core's clock or capacity: below that, a core is of the slow kind

# (implementer, part): what ARM's and its licensees' cores are called
_ARM_CORES = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd09"): "Cortex-A73",
    ("0x41", "0xd0a"): "Cortex-A75",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse N1",
    ("0x41", "0xd0d"): "Cortex-A77",
    ("0x41", "0xd40"): "Neoverse V1",
    ("0x41", "0xd41"): "Cortex-A78",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd44"): "Cortex-X1",
    ("0x41", "0xd46"): "Cortex-A510",
    ("0x41", "0xd47"): "Cortex-A710",
    ("0x41", "0xd48"): "Cortex-X2",
    ("0x41", "0xd49"): "Neoverse N2",
    ("0x41", "0xd4d"): "Cortex-A715",
    ("0x41", "0xd4e"): "Cortex-X3",
    ("0x41", "0xd4f"): "Neoverse V2",
    ("0x41", "0xd80"): "Cortex-A520",
    ("0x41", "0xd81"): "Cortex-A720",
    ("0x41", "0xd82"): "Cortex-X4",
    ("0x41", "0xd84"): "Neoverse V3",
    ("0x41", "0xd8e"): "Neoverse N3",
    ("0x51", "0x001"): "Oryon",
    ("0x61", "0x022"): "Apple M1 efficiency",
    ("0x61", "0x023"): "Apple M1 performance",
    ("0x61", "0x032"): "Apple M2 efficiency",
    ("0x61", "0x033"): "Apple M2 performance",
    ("0xc0", "0xac3"): "Ampere-1",
}


def linux_processor(surroundings: Surroundings) -> Processor:
    logical = attempt(CPUINFO, partial(_logical_cores, surroundings))
    return Processor(
        name=first_known(
            attempt(CPUINFO, partial(_name, surroundings), "it has no name there"),
            attempt("/proc/device-tree/model", lambda: surroundings.text("/proc/device-tree/model").strip("\0\n")),
        ),
        architecture=known(surroundings.architecture, "uname"),
        instruction_sets=attempt(CPUINFO, partial(_instruction_sets, surroundings), "no flags there"),
        physical_cores=_physical_cores(surroundings, logical),
        logical_cores=logical,
        fast_cores=attempt(CPUS, partial(_fast_cores, surroundings), "it does not say which cores are slower"),
        usable_cores=_usable_cores(surroundings, logical),
        cache_bytes=attempt(f"{CPUS}/cpu0/cache", partial(_cache_bytes, surroundings), "it does not show the caches"),
    )


def _blocks(surroundings: Surroundings) -> list[dict[str, str]]:
    return [keyed_lines(block) for block in re.split(r"\n\s*\n", surroundings.text(CPUINFO)) if block.strip()]


def _cores(surroundings: Surroundings) -> list[dict[str, str]]:
    return [block for block in _blocks(surroundings) if "processor" in block]


def _logical_cores(surroundings: Surroundings) -> int | None:
    return len(_cores(surroundings)) or None


def _name(surroundings: Surroundings) -> str | None:
    cores = _cores(surroundings)
    names = unique([name for core in cores if (name := core.get("model name") or core.get("cpu"))])
    parts = Counter(_ARM_CORES.get((core.get("CPU implementer", ""), core.get("CPU part", ""))) for core in cores)
    if None not in parts and parts:
        return " + ".join(f"{count} × {part}" for part, count in parts.items())
    everywhere = {key: value for block in _blocks(surroundings) for key, value in block.items()}
    board = everywhere.get("Model") or everywhere.get("Hardware") or everywhere.get("uarch")
    return " + ".join(names) or board


def _instruction_sets(surroundings: Surroundings) -> tuple[str, ...] | None:
    flags: list[str] = []
    for block in _blocks(surroundings):
        flags += (block.get("flags") or block.get("Features") or "").split()
        if re.match(r"rv\d+[a-z]*v", block.get("isa", "").partition("_")[0]):
            flags.append("rvv")
        if "cpu" in block and "POWER" in block["cpu"]:
            flags.append("vsx")
    return instruction_sets(flags) if flags else None


def _siblings(surroundings: Surroundings) -> dict[int, str]:
    """Return, for each processor, the list of those that share its core."""
    found = {}
    for name in surroundings.names(CPUS):
        if re.fullmatch(r"cpu\d+", name):
            topology = f"{CPUS}/{name}/topology"
            shared = text_or_empty(surroundings, f"{topology}/thread_siblings_list")
            if shared.strip():
                found[int(name[3:])] = shared.strip()
    return found


def _physical_cores(surroundings: Surroundings, logical: Fact[int]) -> Fact[int]:
    siblings = set(_siblings(surroundings).values())
    if siblings:
        return known(len(siblings), CPUS)
    try:
        cores = {(core["physical id"], core["core id"]) for core in _cores(surroundings)}
    except Exception:
        cores = set()
    if cores:
        return known(len(cores), CPUINFO)
    if logical.value is not None and surroundings.architecture.startswith(("arm", "aarch", "riscv")):
        return known(logical.value, f"{CPUINFO}, one thread to a core")
    return unknown("it does not say which processors share a core", CPUINFO)


def _fast_cores(surroundings: Surroundings) -> int | None:
    siblings = _siblings(surroundings)
    hybrid = text_or_empty(surroundings, "/sys/devices/cpu_core/cpus")
    if hybrid.strip():  # Intel says it outright
        fast = cpu_list(hybrid)
    else:
        weights = {}
        for processor in siblings:
            folder = f"{CPUS}/cpu{processor}"
            capacity = number_or_none(surroundings, f"{folder}/cpu_capacity")
            weights[processor] = capacity or number_or_none(surroundings, f"{folder}/cpufreq/cpuinfo_max_freq")
        if not weights or None in weights.values():
            return None
        most = max(weight for weight in weights.values() if weight)
        fast = [processor for processor, weight in weights.items() if weight and weight >= _SLOWER * most]
    return len({siblings.get(processor, str(processor)) for processor in fast}) or None


def _cache_bytes(surroundings: Surroundings) -> int | None:
    """Return the size of all caches of the last level together."""
    sizes: dict[int, dict[str, int]] = {}  # by level, then by the processors that share one
    for name in surroundings.names(CPUS):
        folder = f"{CPUS}/{name}/cache"
        for index in surroundings.names(folder) if re.fullmatch(r"cpu\d+", name) else ():
            kind = text_or_empty(surroundings, f"{folder}/{index}/type").strip()
            size = re.fullmatch(r"(\d+)([KM])", text_or_empty(surroundings, f"{folder}/{index}/size").strip())
            level = number_or_none(surroundings, f"{folder}/{index}/level")
            if kind in ("Unified", "Data") and size and level:
                shared = text_or_empty(surroundings, f"{folder}/{index}/shared_cpu_list").strip() or name
                sizes.setdefault(level, {})[shared] = int(size[1]) * {"K": 1 << 10, "M": 1 << 20}[size[2]]
    return sum(sizes[max(sizes)].values()) if sizes else None


def _usable_cores(surroundings: Surroundings, logical: Fact[int]) -> Fact[float]:
    allowed = attempt("the scheduler's affinity", lambda: float(surroundings.answer("psutil")["allowed_cores"]))
    if allowed.value is None:
        allowed = Fact(None if logical.value is None else float(logical.value), logical.source, logical.reason)
    quota = core_quota(surroundings)
    if quota.value is not None and (allowed.value is None or quota.value < allowed.value):
        return quota
    return allowed
