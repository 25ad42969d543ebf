"""What this computer is: every fact with where it was read, or why it is not known. Takes a second or two; never fails.

Facts come from texts and answers alone (`surroundings.py`), and each system has its reader. What a reader does not
understand becomes an unknown fact with its reason. People ask about half-broken computers most of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from thriftbit.folders import cache_folder
from thriftbit.machine.disks import disk_space, existing_folder, linux_disk, macos_disk
from thriftbit.machine.facts import Disk, Fact, Facts, Gpu, Load, Memory, Power, Processor, System, known, unknown
from thriftbit.machine.gpus import nvidia_gpus, pci_gpus
from thriftbit.machine.library_facts import busy_cores, library_number, library_power
from thriftbit.machine.linux import linux_load, linux_memory, linux_power, linux_system
from thriftbit.machine.linux_processor import linux_processor
from thriftbit.machine.macos import macos_gpus, macos_load, macos_memory, macos_power, macos_processor, macos_system
from thriftbit.machine.model_folders import found_caches, model_folders
from thriftbit.machine.programs import found_programs
from thriftbit.machine.surroundings import LiveSurroundings, Surroundings
from thriftbit.machine.windows import Windows


def detect() -> Facts:
    """Return the facts of this computer, without the built-in engine, which `runtime.examine` adds."""
    surroundings = LiveSurroundings()
    folder = existing_folder(cache_folder())
    total, free = disk_space(folder)
    facts = facts_of(surroundings, str(folder.resolve()), total, free)
    return replace(facts, engines=found_programs(surroundings), caches=found_caches(model_folders()))


def facts_of(surroundings: Surroundings, folder: str, disk_total: Fact[int], disk_free: Fact[int]) -> Facts:
    """Return what the surroundings tell, without programs and folders.

    folder: where models would be kept.
    """
    if surroundings.system == "Linux":
        return _linux(surroundings, folder, disk_total, disk_free)
    if surroundings.system == "Darwin":
        return _macos(surroundings, disk_total, disk_free)
    if surroundings.system == "Windows":
        return _windows(surroundings, disk_total, disk_free)
    return _elsewhere(surroundings, disk_total, disk_free)


def _linux(surroundings: Surroundings, folder: str, disk_total: Fact[int], disk_free: Fact[int]) -> Facts:
    processor = linux_processor(surroundings)
    nvidia, reason = nvidia_gpus(surroundings)
    gpus = [*nvidia, *pci_gpus(surroundings, len(nvidia), reason)]
    return _facts(
        linux_system(surroundings),
        processor,
        linux_memory(surroundings, _unified(gpus)),
        linux_disk(surroundings, folder, disk_total, disk_free),
        gpus,
        linux_power(surroundings),
        linux_load(surroundings, processor.logical_cores.value),
    )


def _macos(surroundings: Surroundings, disk_total: Fact[int], disk_free: Fact[int]) -> Facts:
    processor = macos_processor(surroundings)
    return _facts(
        macos_system(surroundings),
        processor,
        macos_memory(surroundings),
        macos_disk(surroundings, disk_total, disk_free),
        macos_gpus(surroundings),
        macos_power(surroundings),
        macos_load(surroundings, processor.logical_cores.value),
    )


def _windows(surroundings: Surroundings, disk_total: Fact[int], disk_free: Fact[int]) -> Facts:
    windows = Windows(surroundings)
    processor = windows.processor()
    nvidia, _ = nvidia_gpus(surroundings)
    gpus = [*nvidia, *(gpu for gpu in windows.gpus() if not (nvidia and gpu.vendor == "NVIDIA"))]
    filesystem: Fact[str] = unknown("not asked", "PowerShell")
    return _facts(
        windows.system(),
        processor,
        windows.memory(),
        Disk(windows.disk_kind(), filesystem, disk_total, disk_free),
        gpus,
        windows.power(),
        windows.load(processor.logical_cores.value),
    )


def _elsewhere(surroundings: Surroundings, disk_total: Fact[int], disk_free: Fact[int]) -> Facts:
    """Return what psutil says, for a system that has no reader."""
    total, logical = library_number(surroundings, "memory_total_bytes"), library_number(surroundings, "logical_cores")
    reason = f"{surroundings.system} is not known here"
    nothing: Fact[str] = unknown(reason, surroundings.system)
    load = Load(
        busy_cores(surroundings, logical.value),
        unknown(reason, surroundings.system),
        unknown(reason, surroundings.system),
    )
    return _facts(
        System(known(f"{surroundings.system} {surroundings.release}", "uname"), nothing),
        Processor(
            name=nothing,
            architecture=known(surroundings.architecture, "uname"),
            instruction_sets=unknown(reason, surroundings.system),
            physical_cores=library_number(surroundings, "physical_cores"),
            logical_cores=logical,
            fast_cores=unknown(reason, surroundings.system),
            usable_cores=Fact(None if logical.value is None else float(logical.value), logical.source, logical.reason),
            cache_bytes=unknown(reason, surroundings.system),
        ),
        Memory(
            total_bytes=total,
            installed_bytes=total,
            limit_bytes=unknown(reason, surroundings.system),
            available_bytes=library_number(surroundings, "memory_available_bytes"),
            swap_total_bytes=library_number(surroundings, "swap_total_bytes"),
            swap_free_bytes=library_number(surroundings, "swap_free_bytes"),
            unified=unknown(reason, surroundings.system),
        ),
        Disk(nothing, nothing, disk_total, disk_free),
        nvidia_gpus(surroundings)[0],
        library_power(surroundings),
        load,
    )


def _facts(
    system: System, processor: Processor, memory: Memory, disk: Disk, gpus: Sequence[Gpu], power: Power, load: Load
) -> Facts:
    return Facts(system, processor, memory, disk, tuple(gpus), power, load, (), (), tuple(_notes(gpus)))


def _unified(gpus: Sequence[Gpu]) -> Fact[bool]:
    """Return whether every GPU that computes shares the main memory."""
    if not gpus:
        return known(False, "there is no GPU")
    undecided = [gpu for gpu in gpus if gpu.shared.value is None]
    if undecided:
        return unknown(undecided[0].shared.reason, undecided[0].shared.source)
    return known(all(gpu.shared.value for gpu in gpus), gpus[0].shared.source)


def _notes(gpus: Sequence[Gpu]) -> list[str]:
    """Return sentences about what is only partly there."""
    notes = []
    for gpu in gpus:
        if gpu.vendor == "NVIDIA" and gpu.memory_bytes.value is None:
            notes.append(f"There is an NVIDIA GPU that cannot be used as it is: {gpu.memory_bytes.reason}.")
        elif gpu.driver.value is None and gpu.driver.reason == "no driver is loaded":
            notes.append(f"There is an {gpu.vendor} GPU without a driver.")
    return notes
