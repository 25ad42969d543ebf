"""What libraries say about this computer, as plain JSON-like documents: psutil, py-cpuinfo and NVIDIA's NVML.

psutil and py-cpuinfo know macOS and Windows, where otherwise the output of programs would have to be read. On Linux,
/proc and /sys say more, also about containers. Each library is asked once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import psutil

from thriftbit.machine.nvidia import gpu_answers

_LOOK_SECONDS = 0.3


def psutil_answer() -> dict[str, Any]:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return {
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "allowed_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count(),
        "memory_total_bytes": memory.total,
        "memory_available_bytes": memory.available,
        "swap_total_bytes": swap.total,
        "swap_free_bytes": swap.free,
        "battery_percent": battery and round(battery.percent),
        "power_plugged": battery and battery.power_plugged,
        "busy_share": psutil.cpu_percent(interval=_LOOK_SECONDS) / 100,
    }


def cpuinfo_answer() -> dict[str, Any]:
    import cpuinfo  # runs a program or two, so only when asked

    answer = cpuinfo.get_cpu_info()
    return {"brand": answer.get("brand_raw"), "flags": answer.get("flags", [])}


ANSWERS: dict[str, Callable[[], Mapping[str, Any]]] = {
    "psutil": psutil_answer,
    "cpuinfo": cpuinfo_answer,
    "nvml": gpu_answers,
}
