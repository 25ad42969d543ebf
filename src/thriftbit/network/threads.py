"""How many threads to compute with, found by trying.

torch uses every core by default. Beside other programs that can be slower than one thread: threads wait for each other
after every operation, so one thread without a core delays all of them."""

from __future__ import annotations

import statistics
import time
from contextlib import nullcontext

import torch

from thriftbit.network.products import short_products

WIDTH = 768  # of the matrices in a trial, which takes some milliseconds
TRIALS = 7


def choose_threads() -> int:
    """Set torch to the number of threads with which it computes fastest now, and return that number. Takes about a
    second."""
    most = torch.get_num_threads()
    counts = sorted({most, max(1, most * 3 // 4), max(1, most // 2), 1})
    matrix = torch.rand(WIDTH, WIDTH)
    seconds = {count: _seconds(matrix, count) for count in counts}
    best = min(counts, key=lambda count: seconds[count])
    torch.set_num_threads(best)
    return best


def multiplications_per_second(*, short: bool = False) -> float:
    """Return multiplications and additions per second in products of matrices of WIDTH, with torch's current threads.

    short: whether the products are of bfloat16; see `short_products`."""
    with short_products(torch.device("cpu")) if short else nullcontext():
        return 2 * WIDTH**3 / _seconds(torch.rand(WIDTH, WIDTH), torch.get_num_threads())


def _seconds(matrix: torch.Tensor, threads: int) -> float:
    """Return the median seconds of a product, an activation and another product, with that many threads."""
    torch.set_num_threads(threads)
    times = []
    for _ in range(TRIALS):
        start = time.perf_counter()
        torch.nn.functional.silu(matrix @ matrix) @ matrix
        times.append(time.perf_counter() - start)
    return statistics.median(times)
