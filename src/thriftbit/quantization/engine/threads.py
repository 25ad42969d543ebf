"""One thread inside a task, wherever it is computed.

Matrix products add in another order with another number of threads, so a task's result would depend on it. Parallel
work is over tasks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController

# for processes that are started: read by OpenBLAS, MKL, Accelerate, and whatever uses OpenMP
ENVIRONMENT = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, the products of numpy and torch in this process use one thread."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch is not None else 1
    with _libraries().limit(limits=1, user_api="blas"):
        try:
            if torch is not None and before != 1:
                torch.set_num_threads(1)
            yield
        finally:
            if torch is not None and before != 1:
                torch.set_num_threads(before)


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")
