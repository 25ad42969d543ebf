"""With how many threads llama.cpp computes, changed while it runs, as other programs and the power supply come and go.

The problem: llama.cpp's threads wait for one another hundreds of times per token. Beside a program that keeps one
core busy, one thread always waits for its turn, and two threads together write a third of what one writes alone. The
system cannot know that, and llama.cpp takes one number of threads when it loads.

The choice: on Linux llama.cpp asks GNU's OpenMP for its threads anew at every token, and goes on with as many as it
gets. A library of ours, loaded before OpenMP, passes on a smaller number (native/thread_limit.cpp). Four times a
second a thread here reads how much other programs compute, and less often whether there is a battery, and sets the
number; `polite.py` decides it.

Left out: macOS and Windows, where llama.cpp has threads of its own, and keeps the number it was started with.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
import threading
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import psutil

from thriftbit.runtime.polite import physical_cores, spared_threads, threads_beside

_LIBRARY = "_thread_limit.so.1"
_SECONDS_BETWEEN_LOOKS = 0.25
_SECONDS_AT_REST = 1.0  # when the model computes nothing
_LOOKS_BETWEEN_READINGS = 20  # of the power supply, which is not changed as often
_WEIGHT = 0.5  # of the last look, beside those before: a moment's work of others is not worth a change


@dataclass(frozen=True)
class ProcessorTimes:
    """Seconds since the computer started. seconds: by the clock; busy: that the cores which this process may use were
    busy, summed, with whatever program; own: that this process computed."""

    seconds: float
    busy: float
    own: float

    @classmethod
    def now(cls) -> Self:
        process = psutil.Process()
        allowed = set(process.cpu_affinity())
        cores = [core for number, core in enumerate(psutil.cpu_times(percpu=True)) if number in allowed]
        own = process.cpu_times()
        busy = sum(c.user + c.nice + c.system + c.irq + c.softirq + c.steal for c in cores)
        return cls(time.monotonic(), busy, own.user + own.system)


def cores_of_others(before: ProcessorTimes, now: ProcessorTimes) -> float:
    """Return how many cores other programs kept busy between the two times, on average."""
    seconds = now.seconds - before.seconds
    return max(0.0, (now.busy - before.busy - (now.own - before.own)) / seconds) if seconds > 0 else 0.0


class ThreadLimit:
    """`limit = ThreadLimit()` before llama.cpp is imported; it is started with `limit.threads_to_start(threads)`, and
    once it is loaded, `limit.follow_load(threads)`. Where nothing can be changed later, less is decided at the start.
    """

    def __init__(self) -> None:
        self._most: ctypes.c_uint | None = None
        package = find_spec("thriftbit._native")
        path = Path(package.origin).with_name(_LIBRARY) if package and package.origin else None
        if sys.platform == "linux" and path and path.is_file():
            library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            self._most = ctypes.c_uint.in_dll(library, "thriftbit_most_threads")

    @property
    def threads(self) -> int | None:
        """The most threads that llama.cpp computes with; None for as many as it was started with."""
        return None if self._most is None else self._most.value or None

    @threads.setter
    def threads(self, most: int | None) -> None:
        if self._most is not None:  # its truth is its value
            self._most.value = most or 0

    def threads_to_start(self, threads: int | None) -> int:
        """threads: that are fastest when nothing else runs; None for all physical cores"""
        return spared_threads(threads) if self._most is None else threads or physical_cores()

    def follow_load(self, threads: int) -> None:
        """threads: that llama.cpp was started with. Starts a thread that sets the limit for as long as this process
        lives."""
        if self._most is not None:
            self.threads = spared_threads(threads)
            cores = max(threads, physical_cores())  # on some, two threads a core are fastest
            threading.Thread(target=self._follow, args=(threads, cores), daemon=True).start()

    def _follow(self, threads: int, cores: int) -> None:
        others, before, pause = 0.0, ProcessorTimes.now(), _SECONDS_BETWEEN_LOOKS
        for look in itertools.count():
            if look % _LOOKS_BETWEEN_READINGS == 0:
                spared = spared_threads(threads)
            time.sleep(pause)
            now = ProcessorTimes.now()
            others += _WEIGHT * (cores_of_others(before, now) - others)
            self.threads = threads_beside(spared, cores, others)
            pause = _SECONDS_BETWEEN_LOOKS if now.own > before.own else _SECONDS_AT_REST
            before = now
