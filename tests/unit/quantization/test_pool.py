"""Tasks in worker processes: their order, what is raised, and that a dead worker costs nothing but time."""

from __future__ import annotations

import math
import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from thriftbit.errors import ThriftbitError
from thriftbit.quantization.engine.pool import Pool
from thriftbit.quantization.engine.threads import one_thread


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool(2)
    yield pool
    pool.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_tasks(workers: int, pool: Pool) -> None:
    chosen = pool if workers == 2 else Pool(1)
    assert list(chosen.in_order(math.factorial, range(40), "counting")) == [math.factorial(n) for n in range(40)]
    arrays = [np.full((3, 5), number, np.float32) for number in range(6)]
    for array, found in zip(arrays, chosen.in_order(np.negative, arrays, "counting"), strict=True):
        np.testing.assert_array_equal(found, -array)


def test_tasks_are_drawn_as_they_are_needed(pool: Pool) -> None:
    drawn = list[int]()

    def tasks() -> Iterator[int]:
        for number in range(100):
            drawn.append(number)
            yield number

    results = pool.in_order(math.sqrt, tasks(), "counting")
    assert next(results) == 0 and len(drawn) <= 4
    results.close()
    assert list(pool.in_order(math.sqrt, [4], "counting")) == [2]  # with new workers


def test_what_a_task_raises_is_raised_here(pool: Pool) -> None:
    with pytest.raises(ValueError, match=r"math domain error|nonnegative") as caught:
        list(pool.in_order(math.sqrt, [-1], "counting"))
    assert any("In a worker process" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("workers", [1, 2])
def test_want_of_memory_is_a_sentence(workers: int, pool: Pool) -> None:
    chosen = pool if workers == 2 else Pool(1)
    with pytest.raises(ThriftbitError, match=r"rounding tiny: there is not enough memory, with .* free now"):
        list(chosen.in_order(np.ones, [3, 1 << 50, 4], "rounding tiny"))


def test_a_worker_that_dies_takes_nothing_with_it(pool: Pool) -> None:
    results = pool.in_order(time.sleep, [0.0, 0.6, 0.6, 0.0, 0.0], "sleeping")
    next(results)  # both workers are at one of the long tasks now
    time.sleep(0.2)
    victim = pool._processes[0]
    os.kill(victim.pid, signal.SIGKILL)
    assert list(results) == [None] * 4
    assert victim.poll() is not None and victim not in pool._processes


def test_a_task_that_no_worker_outlives_ends_in_a_sentence(pool: Pool) -> None:
    with pytest.raises(ThriftbitError, match="not enough memory"):
        list(pool.in_order(os._exit, [3], "rounding tiny"))


def test_workers_end_with_the_process_that_started_them() -> None:
    code = (
        "import operator, time, os; from thriftbit.quantization.engine.pool import pool_of; pool = pool_of(2)\n"
        "list(pool.in_order(abs, range(8), 'counting')); print(*(p.pid for p in pool._processes), flush=True)\n"
        "list(pool.in_order(time.sleep, [60, 60], 'sleeping'))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        workers = [psutil.Process(int(number)) for number in process.stdout.readline().split()]
        assert len(workers) == 2
        time.sleep(0.2)
        process.kill()
    assert psutil.wait_procs(workers, timeout=5)[1] == []


def test_one_thread_inside_a_task() -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_workers_compute_with_one_thread(pool: Pool) -> None:
    assert list(pool.in_order(os.getenv, ["OMP_NUM_THREADS"], "asking")) == ["1"]
    assert list(pool.in_order(operator.neg, [True], "asking")) == [-1]
