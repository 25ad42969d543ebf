"""The most memory that this process ever held, as the operating system counts it.

Resident memory: what is in RAM, the weights that are mapped from the file included. Every system has its own place for
the number. On Linux it is VmHWM: getrusage's would include what the parent held when it started this process.
"""

from __future__ import annotations

import sys
from pathlib import Path


def peak_memory_bytes() -> int:
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
