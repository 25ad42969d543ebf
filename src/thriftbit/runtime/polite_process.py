"""What the engine's process does to itself so that other programs come first: priority, and how its threads wait.

The system then decides anew at every moment, which no count of busy cores can: a model has all that is idle, and
whoever wakes up gets a core at once. For that its threads must sleep while they wait for one another. llama.cpp's wait
by spinning: one that waits for another which has lost its core keeps a core busy with nothing, and beside other work a
model gets several times slower. Where llama.cpp is built with OpenMP (on Linux), OpenMP's own waiting is told to sleep.

Left out: the background class of macOS, which confines a process to the slow cores, and Linux's idle class for input
and output, in which loading a model may stand still for as long as others use the disk.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import psutil

NICENESS = 10
_AUTOGROUP = Path("/proc/self/autogroup")
_LOWEST_BEST_EFFORT = 7

# For the environment in which the process starts: GNU's OpenMP reads the first, LLVM's and Intel's the second.
WAITING_ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}


def step_back() -> None:
    """Lowers the priority of this thread and of all that it starts. Whatever the system does not allow is left as it
    is: a model that runs at full priority is better than none."""
    process = psutil.Process()
    with suppress(OSError, psutil.Error):
        if sys.platform == "win32":
            process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        else:
            process.nice(max(NICENESS, process.nice()))
    with suppress(OSError, psutil.Error, AttributeError):  # macOS has no priorities for input and output
        if sys.platform == "win32":
            process.ionice(psutil.IOPRIO_LOW)
        else:
            process.ionice(psutil.IOPRIO_CLASS_BE, _LOWEST_BEST_EFFORT)
    # On a desktop Linux may share time out between sessions, and niceness counts only inside one. The engine has a
    # session of its own (`engine.py`), whose niceness this is.
    with suppress(OSError):
        _AUTOGROUP.write_text(str(os.getpriority(os.PRIO_PROCESS, 0)))


def wait_asleep(parameters: object) -> None:
    """parameters: llama.cpp's. For builds without OpenMP, whose own threads can be told not to spin between tokens."""
    for threads in ("cpuparams", "cpuparams_batch"):
        getattr(parameters, threads).poll = 0
