"""What the engine's process does to itself so that other programs come first: priority, and how its threads wait.

The system decides at every moment who gets a core, which no count of busy cores can do as well. A model may have all
that is idle, and a program that wakes up gets a core at once. But then the model's threads must not wait for one
another with a core in hand. llama.cpp's threads spin: a thread that waits for another one, which has lost its core,
keeps its own core busy with nothing, and beside other work a model gets several times slower. On the other hand the
threads wait hundreds of times per token for a few microseconds only, and falling asleep and waking up takes longer
than that. So they spin for some 25 microseconds, then sleep. OpenMP can be told to do this, where llama.cpp is built
with it (on Linux).

Linux lets a running thread finish its slice of time even if a more important one wakes up, unless the slice of the
other thread is shorter. So the model's threads ask for long slices (Linux 6.12 and later; older ones do not listen).
A program that wakes up then gets a core at once; before, it waited for the next tick of the clock, up to four
milliseconds.

Left out: the background class of macOS, which confines a process to the slow cores, and Linux's idle class for input
and output, in which loading a model may stand still for as long as others use the disk.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path

import psutil

NICENESS = 10
_AUTOGROUP = Path("/proc/self/autogroup")
_LOWEST_BEST_EFFORT = 7

_SLICE_NANOSECONDS = 20_000_000  # where others have 3 or so
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}  # number of the system call, which Python has no function for

# For the environment in which the process starts. GNU's OpenMP reads the first, in turns of its loop, LLVM's and
# Intel's the second, in milliseconds.
SHORT_WAITING = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}


def step_back() -> None:
    """Lowers the priority of this process, its threads and all that they start. Whatever the system does not allow is
    left as it is: a model that runs at full priority is better than none."""
    process = psutil.Process()
    with suppress(OSError, psutil.Error):
        if sys.platform == "win32":
            process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        else:
            process.nice(max(NICENESS, process.nice()))
    if sys.platform == "linux":  # there each thread has a niceness of its own, and libraries have started some already
        for thread in process.threads():
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, thread.id, process.nice())
                _take_long_slices(thread.id, process.nice())
    with suppress(OSError, psutil.Error, AttributeError):  # macOS has no priorities for input and output
        if sys.platform == "win32":
            process.ionice(psutil.IOPRIO_LOW)
        else:
            process.ionice(psutil.IOPRIO_CLASS_BE, _LOWEST_BEST_EFFORT)
    # On a desktop Linux may share time out between sessions, and niceness counts only inside one. The engine has a
    # session of its own (`engine.py`), whose niceness this is.
    with suppress(OSError):
        _AUTOGROUP.write_text(str(os.getpriority(os.PRIO_PROCESS, 0)))


class _Scheduling(ctypes.Structure):
    """As Linux has it: struct sched_attr, first version"""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("niceness", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def _take_long_slices(thread: int, niceness: int) -> None:
    """thread: of this process, by the system's number. One that was started in a class of lower rank stays there."""
    number = _SCHED_SETATTR.get(platform.machine())
    if number is not None and os.sched_getscheduler(thread) == os.SCHED_OTHER:
        wanted = _Scheduling(ctypes.sizeof(_Scheduling), os.SCHED_OTHER, 0, niceness, 0, _SLICE_NANOSECONDS, 0, 0)
        ctypes.CDLL(None).syscall(number, thread, ctypes.byref(wanted), 0)


def wait_asleep(parameters: object) -> None:
    """parameters: llama.cpp's. For builds without OpenMP, whose own threads can be told not to spin between tokens."""
    for threads in ("cpuparams", "cpuparams_batch"):
        getattr(parameters, threads).poll = 0
