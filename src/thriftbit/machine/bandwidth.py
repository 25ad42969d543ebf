"""How fast memory is read here. This bounds the speed of writing for a model that no cache holds.

numpy reduces a large array of integers with "exclusive or", the cheapest arithmetic there is, and other Python threads
run meanwhile. Sums and maxima, of integers and of floats, are no faster. The array is at least four times the last
cache. It has more pieces than there are threads, so a delayed thread does not delay the others.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from thriftbit.machine.profile import Bandwidth, Spread

_PIECES_PER_THREAD = 8
_REPETITIONS = 7
_LEAST_BYTES, _MOST_BYTES = 64 << 20, 1 << 30
_CACHES = 4  # times the last one


def spread_of(values: Sequence[float]) -> Spread:
    """Return the median and quartiles."""
    low, median, high = np.quantile(np.asarray(values, np.float64), (0.25, 0.5, 0.75)).tolist()
    return Spread(median, low, high)


def beyond_caches_bytes(cache_bytes: int | None, available_bytes: int | None) -> int:
    """Return how many bytes to read so that caches do not help; at most a quarter of the free memory."""
    wanted = max(_LEAST_BYTES, _CACHES * (cache_bytes or 0))
    return min(wanted, _MOST_BYTES, (available_bytes or _MOST_BYTES) // 4)


class BandwidthProbe:
    """Holds that much memory as long as it lives."""

    def __init__(self, size_bytes: int) -> None:
        self._words: NDArray[np.uint64] = np.ones(max(1, size_bytes // 8), np.uint64)

    def measure(self, threads: int) -> Bandwidth:
        """Return the spread of several repetitions, after one that does not count."""
        pieces = np.array_split(self._words, threads * _PIECES_PER_THREAD)
        rates = []
        with ThreadPoolExecutor(threads) as pool:
            for _ in range(_REPETITIONS + 1):
                started = time.perf_counter()
                for _ in pool.map(np.bitwise_xor.reduce, pieces):
                    pass
                rates.append(self._words.nbytes / (time.perf_counter() - started))
        return Bandwidth(threads, spread_of(rates[1:]))
