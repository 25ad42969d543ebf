"""Windows: psutil for memory, cores and battery; py-cpuinfo for instruction sets; one question to PowerShell for the
rest.

`Win32_VideoController` reports at most 4 GB of memory, because its field has 32 bits. Drivers leave the true number in
the registry, so the registry is asked first.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from thriftbit.machine.facts import Fact, Gpu, Load, Memory, Power, Processor, System, known, unknown
from thriftbit.machine.instruction_sets import instruction_sets
from thriftbit.machine.library_facts import busy_cores, library_number, library_power
from thriftbit.machine.surroundings import Surroundings, attempt, json_output

_REGISTRY = r"HKLM:\SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}\0*"
_QUESTION = (
    "$ErrorActionPreference='SilentlyContinue';"
    "@{os=Get-CimInstance Win32_OperatingSystem|Select-Object Caption,Version;"
    "processor=@(Get-CimInstance Win32_Processor|Select-Object Name,L3CacheSize);"
    "gpus=@(Get-CimInstance Win32_VideoController|Select-Object Name,AdapterRAM,DriverVersion,PNPDeviceID);"
    f"registry=@(Get-ItemProperty '{_REGISTRY}'|Select-Object DriverDesc,'HardwareInformation.qwMemorySize');"
    "disks=@(Get-PhysicalDisk|Select-Object MediaType,BusType)}|ConvertTo-Json -Depth 4"
)
COMMAND = ("powershell", "-NoProfile", "-NonInteractive", "-Command", _QUESTION)
_VENDORS = {"10DE": "NVIDIA", "1002": "AMD", "8086": "Intel", "QCOM": "Qualcomm"}
_LARGEST_32_BITS = 4293918720  # 4 GB less a page of Windows'


class Windows:
    """surroundings: asked once, as PowerShell takes seconds to start."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._answer: Fact[dict[str, Any]] = attempt("PowerShell", partial(json_output, surroundings, *COMMAND))

    def system(self) -> System:
        name = self._fact(lambda answer: str(answer["os"]["Caption"]).removeprefix("Microsoft ").strip())
        return System(name, known("", "Windows"))

    def processor(self) -> Processor:
        logical: Fact[int] = library_number(self._surroundings, "logical_cores")
        return Processor(
            name=self._fact(
                lambda answer: " + ".join({each["Name"].strip(): 0 for each in _list(answer["processor"])})
            ),
            architecture=known(self._surroundings.architecture, "Windows"),
            instruction_sets=attempt(
                "py-cpuinfo",
                lambda: instruction_sets(self._surroundings.answer("cpuinfo")["flags"]) or None,
                "it finds none",
            ),
            physical_cores=library_number(self._surroundings, "physical_cores"),
            logical_cores=logical,
            fast_cores=unknown("Windows does not say it here", "PowerShell"),
            usable_cores=attempt("psutil", lambda: float(self._surroundings.answer("psutil")["allowed_cores"])),
            cache_bytes=self._fact(
                lambda answer: sum(int(each["L3CacheSize"]) for each in _list(answer["processor"])) * 1024 or None
            ),
        )

    def memory(self) -> Memory:
        total = library_number(self._surroundings, "memory_total_bytes")
        integrated = [gpu for gpu in self.gpus() if gpu.shared.value]
        return Memory(
            total_bytes=total,
            installed_bytes=total,
            limit_bytes=unknown("no limit is known", "Windows"),
            available_bytes=library_number(self._surroundings, "memory_available_bytes"),
            swap_total_bytes=library_number(self._surroundings, "swap_total_bytes"),
            swap_free_bytes=library_number(self._surroundings, "swap_free_bytes"),
            unified=known(True, "PowerShell") if integrated else unknown("Windows does not say it here", "PowerShell"),
        )

    def gpus(self) -> list[Gpu]:
        """Return all but those that only draw a remote or virtual screen."""
        if self._answer.value is None:
            return []
        found = []
        for entry in _list(self._answer.value.get("gpus")):
            gpu = attempt("PowerShell", partial(self._gpu, entry))
            if gpu.value is not None:
                found.append(gpu.value)
        return found

    def power(self) -> Power:
        return library_power(self._surroundings)

    def load(self, logical_cores: int | None) -> Load:
        return Load(
            busy_cores=busy_cores(self._surroundings, logical_cores),
            temperature_celsius=unknown("Windows tells only administrators, and few computers at all", "Windows"),
            throttled=unknown("Windows does not say", "Windows"),
        )

    def disk_kind(self) -> Fact[str]:
        """Return the kind if all disks are of one kind. Which of several disks holds a folder is not asked."""
        return self._fact(
            lambda answer: " or ".join(sorted({_disk_kind(disk) for disk in _list(answer["disks"])})) or None
        )

    def _fact(self, read: Any) -> Fact[Any]:
        if self._answer.value is None:
            return unknown(self._answer.reason, "PowerShell")
        return attempt("PowerShell", partial(read, self._answer.value))

    def _gpu(self, entry: dict[str, Any]) -> Gpu | None:
        vendor = re.search(r"VEN_([0-9A-Z]{4})", str(entry.get("PNPDeviceID")))
        if vendor is None or vendor[1] not in _VENDORS:
            return None
        name = str(entry["Name"])
        integrated = (
            _VENDORS[vendor[1]] in ("Intel", "Qualcomm") and "Arc(TM) A" not in name and "Arc(TM) B" not in name
        )
        memory: Fact[int] = (
            unknown("it shares the main memory", "PowerShell") if integrated else self._gpu_memory(name, entry)
        )
        driver = entry.get("DriverVersion")
        return Gpu(
            vendor=_VENDORS[vendor[1]],
            name=known(name, "PowerShell"),
            memory_bytes=memory,
            free_bytes=unknown("Windows does not say", "PowerShell"),
            shared=known(integrated, "PowerShell") if integrated or memory.value else unknown("not said", "PowerShell"),
            compute=unknown("Windows does not say", "PowerShell"),
            driver=known(str(driver), "PowerShell") if driver else unknown("no driver is loaded", "PowerShell"),
        )

    def _gpu_memory(self, name: str, entry: dict[str, Any]) -> Fact[int]:
        assert self._answer.value is not None
        for registered in _list(self._answer.value.get("registry")):
            size = registered.get("HardwareInformation.qwMemorySize")
            if registered.get("DriverDesc") == name and isinstance(size, int) and size > 0:
                return known(size, "registry")
        size = entry.get("AdapterRAM")
        if isinstance(size, int) and 0 < size < _LARGEST_32_BITS:
            return known(size, "Win32_VideoController")
        return unknown("Windows tells at most 4 GB", "Win32_VideoController")


def _list(value: Any) -> list[Any]:
    """Return the list. PowerShell turns a list with one element into that element."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _disk_kind(disk: dict[str, Any]) -> str:
    media, bus = str(disk.get("MediaType")), str(disk.get("BusType"))
    if bus in ("NVMe", "17"):
        return "NVMe SSD"
    return {"SSD": "SSD", "4": "SSD", "HDD": "hard disk", "3": "hard disk"}.get(media, "disk of unknown kind")
