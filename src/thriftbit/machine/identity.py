"""The machine that a number comes from, in a few facts that do not change while it runs.

Nothing here names its owner: no host name, no serial number, no address. Left out until something needs it: what is
free now, bandwidth, details of GPUs.
"""

from __future__ import annotations

import os
import platform
from functools import cache

import psutil


@cache
def describe_machine() -> dict[str, str | int]:
    """Return the machine's facts: processor (its name), architecture ("x86_64"), physical_cores and logical_cores (that
    this process may use), memory_bytes (in total), system ("Linux 6.12") and python (its version)."""
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "physical_cores": psutil.cpu_count(logical=False) or usable_cores(),
        "logical_cores": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
    }


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    import cpuinfo  # runs a program or two, so only when asked

    return str(cpuinfo.get_cpu_info().get("brand_raw") or platform.processor() or "unknown")
