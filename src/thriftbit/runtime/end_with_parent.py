"""Ends a process when the one that started it ends, however that happened.

The engine hears of its parent's end by the end of its input. But while llama.cpp loads a model or runs a template, no
Python runs in its process, and nobody reads the input. Linux can be asked to kill a process when its parent ends.
Elsewhere a second process of ours looks once a second, and does it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LOOK_SECONDS = 1.0


def end_with_parent(parent_id: int) -> None:
    """parent_id: of the process that started this one. Linux means the thread that did; it has to live on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_id:  # it ended before we could ask
            os._exit(0)
        return
    command = [sys.executable, "-P", "-m", __name__, str(parent_id), str(os.getpid())]
    subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _watch(parent_id: int, child_id: int) -> None:
    """Until one of the two ends; then ends the child, if it is that one still."""
    with suppress(psutil.NoSuchProcess):
        child = psutil.Process(child_id)
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(parent_id)
            while parent.is_running() and child.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
                time.sleep(_LOOK_SECONDS)
        child.kill()


if __name__ == "__main__":
    _watch(int(sys.argv[1]), int(sys.argv[2]))
