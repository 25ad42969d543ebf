"""Runs a function in a process of its own and says what it took: time, processor time, and the most memory it held.

A process that did something else before would count what that left behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, TypeVar

import torch

from thriftbit.runtime.peak_memory import peak_memory_bytes

Result = TypeVar("Result")


@dataclass(frozen=True)
class Cost:
    wall_seconds: float
    cpu_seconds: float
    peak_mb: float

    @property
    def words(self) -> str:
        return f"{self.wall_seconds:.0f} s ({self.cpu_seconds:.0f} s of processor time), {self.peak_mb:,.0f} MB"


def in_own_process(threads: int, function: Callable[..., Result], *arguments: Any) -> tuple[Result, Cost]:
    """function: of a module, as it is found there again. threads: of torch. Returns what it returned, and its cost."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measured, threads, function, arguments).result()


def _measured(threads: int, function: Callable[..., Result], arguments: tuple[Any, ...]) -> tuple[Result, Cost]:
    torch.set_num_threads(threads)
    wall, processor = time.perf_counter(), time.process_time()
    result = function(*arguments)
    peak_mb = peak_memory_bytes() / 1e6
    return result, Cost(time.perf_counter() - wall, time.process_time() - processor, peak_mb)
