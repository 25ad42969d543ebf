"""How many threads numpy's matrix products are fastest with, found by trying, again and again.

Rounding is matrix products and little else. The library behind them takes every core, and its threads wait for one
another by spinning: beside other work, two threads took thirty times as long as one for the same matrices. What else
is at work changes within minutes, and rounding takes hours; so the number is tried anew now and then.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

_SHAPE = (64, 1024)  # of what is multiplied for a trial, by a square matrix: as rounding does, in a millisecond
_TRIALS = 20
_BELIEVED_SECONDS = 10.0
_WORTH_IT = 0.8  # of the time, or the fewer threads are taken: what is idle for a moment is not idle for long

_chosen = (0, float("-inf"))  # number of threads, and when it was found


@contextmanager
def fastest_products() -> Iterator[None]:
    """While it lasts, numpy multiplies with the number of threads that was fastest of late. Also as a decorator."""
    global _chosen
    if time.monotonic() - _chosen[1] > _BELIEVED_SECONDS:
        _chosen = (_fastest(), time.monotonic())
    with _library().limit(limits=_chosen[0], user_api="blas"):
        yield


def _fastest() -> int:
    most = max((info["num_threads"] for info in _library().info()), default=1)
    counts = sorted({max(1, most >> halvings) for halvings in range(most.bit_length())})
    best, seconds = 1, _seconds(1)
    for count in counts[1:]:
        if (now := _seconds(count)) < _WORTH_IT * seconds:
            best, seconds = count, now
    return best


def _seconds(threads: int) -> float:
    """-> for a few products: their sum, as one that had to wait for long is what this is about"""
    rows, square = (np.ones((count, _SHAPE[1]), np.float32) for count in _SHAPE)
    with _library().limit(limits=threads, user_api="blas"):
        started = time.perf_counter()
        for _ in range(_TRIALS):
            rows @ square
        return time.perf_counter() - started


@cache
def _library() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")
