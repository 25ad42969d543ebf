"""The number of threads with which numpy's matrix products are fastest, found by trying again and again.

Rounding is matrix products and little else. The library behind them uses every core, and its threads spin while they
wait for one another. Beside other work, two threads took thirty times as long as one for the same matrices. The load
changes within minutes and rounding takes hours, so the number is tried again now and then.
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
_WORTH_IT = 0.8  # more threads are used only if they take at most this share of the time: idle cores may be busy soon

_chosen = (0, float("-inf"))  # number of threads, and when it was found


@contextmanager
def fastest_products() -> Iterator[None]:
    """In this context, numpy multiplies with the number of threads that was fastest in the last trial. Also a
    decorator."""
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
    """Return the total seconds of a few products. A total includes the ones that had to wait, which a median would
    hide."""
    rows, square = (np.ones((count, _SHAPE[1]), np.float32) for count in _SHAPE)
    with _library().limit(limits=threads, user_api="blas"):
        started = time.perf_counter()
        for _ in range(_TRIALS):
            rows @ square
        return time.perf_counter() - started


@cache
def _library() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")
