"""Tasks computed by worker processes, with their results in the order of the tasks.

The problem: rounding and calibrating take hours on one core, and a sum must not depend on how many cores there are. The
choice: a task is a function of the package and one argument, both of which can be pickled. It computes the same bytes
in this process and in any worker, with one thread. Results come back in the order of the tasks, so that whoever adds
them up adds in one order.

A worker that dies takes nothing with it but time: its task is given to a new one. A task for which there is not enough
memory is computed again with no other beside it. Workers are started when the first task comes and stay for the next
ones. They end with this process, however it ends.

With one worker, tasks are computed in this process.
"""

from __future__ import annotations

import atexit
import logging
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import BinaryIO, TypeVar, cast

import psutil

from thriftbit.errors import ThriftbitError, is_out_of_memory
from thriftbit.quantization.engine.messages import receive, send
from thriftbit.quantization.engine.threads import ENVIRONMENT, one_thread
from thriftbit.sizes import describe_bytes

_logger = logging.getLogger(__name__)

Task = TypeVar("Task")
Result = TypeVar("Result")

_LOOK_SECONDS = 0.5  # between two looks for Ctrl-C, where waiting for a thread cannot be interrupted
_LIVES = 2  # workers that a task may outlive


class Pool:
    """workers: how many processes; 1 for this one. It can be used by one thread at a time."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._threads: ThreadPoolExecutor | None = None
        self._own = threading.local()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._closing = False

    def in_order(
        self, function: Callable[[Task], Result], tasks: Iterable[Task], doing: str, at_once: int | None = None
    ) -> Iterator[Result]:
        """Yield function(task) for each task, in their order.

        function: of a module of this package. tasks: are drawn as they are needed, at most two for each worker ahead of
        the result that is yielded. doing: "rounding MODEL", for errors. at_once: tasks in memory at a time, as many as
        there are workers if None.

        Raises what the function raises, and ThriftbitError for want of memory or if workers keep dying.
        """
        workers = min(self.workers, at_once or self.workers)
        if self.workers == 1:
            for task in tasks:
                with one_thread():
                    result = _explained(lambda task=task: function(task), doing)  # type: ignore[misc]
                yield result
            return
        waiting: deque[tuple[Task, Future[Result]]] = deque()
        places = threading.Semaphore(workers)
        try:
            for task in tasks:
                waiting.append((task, self._submit(function, task, places)))
                if len(waiting) >= 2 * workers:
                    yield self._result(function, waiting, doing, places)
            while waiting:
                yield self._result(function, waiting, doing, places)
        except BaseException:
            self.close()  # whatever the workers compute now, nobody waits for it
            raise

    def close(self) -> None:
        """End the workers at once. The next task starts new ones."""
        self._closing = True
        processes, self._processes = self._processes, []
        for process in processes:
            process.kill()
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
            self._threads = None
        for process in processes:
            _end(process)
        self._own = threading.local()
        self._closing = False

    def _submit(self, function: Callable[[Task], Result], task: Task, places: threading.Semaphore) -> Future[Result]:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.workers, "thriftbit-worker")
        return self._threads.submit(self._compute, function, task, places)

    def _result(
        self,
        function: Callable[[Task], Result],
        waiting: deque[tuple[Task, Future[Result]]],
        doing: str,
        places: threading.Semaphore,
    ) -> Result:
        task, future = waiting[0]
        try:
            result = _wait(future)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            for _, other in waiting:  # until no task is computed beside it
                with suppress(Exception):
                    _wait(other)
            alone = self._submit(function, task, places)
            result = _explained(lambda: _wait(alone), doing)
        waiting.popleft()
        return result

    def _compute(self, function: Callable[[Task], Result], task: Task, places: threading.Semaphore) -> Result:
        """In a thread for each worker"""
        with places:
            for _ in range(_LIVES):
                process = self._process()
                try:
                    send(cast(BinaryIO, process.stdin), (function, task))
                    good, answer = receive(cast(BinaryIO, process.stdout))
                except (EOFError, OSError):
                    if self._closing:
                        break
                    self._own.process = None
                    with suppress(ValueError):
                        self._processes.remove(process)
                    _end(process)
                    _logger.debug("a worker ended with %s; its task is given to another", process.returncode)
                    continue
                if good:
                    return answer  # type: ignore[no-any-return]
                raise answer
        raise MemoryError("worker processes ended in the middle of it, as the system ends them when memory runs out")

    def _process(self) -> subprocess.Popen[bytes]:
        """Return this thread's worker, started if there is none."""
        process: subprocess.Popen[bytes] | None = getattr(self._own, "process", None)
        if process is None:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "thriftbit.quantization.engine.worker", str(os.getpid())],
                env=os.environ | ENVIRONMENT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for this process, which ends the workers
            )
            self._own.process = process
            self._processes.append(process)
        return process


_pools: dict[int, Pool] = {}


def pool_of(workers: int) -> Pool:
    """Return the pool with this many workers; one for the whole process, so that workers are started once."""
    if workers not in _pools:
        _pools[workers] = Pool(workers)
    return _pools[workers]


@atexit.register
def _close_all() -> None:
    for pool in _pools.values():
        pool.close()


def _explained(compute: Callable[[], Result], doing: str) -> Result:
    try:
        return compute()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ThriftbitError(
            f"{doing}: there is not enough memory, with {describe_bytes(psutil.virtual_memory().available)} free now; "
            "close other programs, give fewer --workers, or do it on a computer with more. What is finished is kept"
        ) from error


def _wait(future: Future[Result]) -> Result:
    while True:
        try:
            return future.result(timeout=_LOOK_SECONDS if os.name == "nt" else None)
        except TimeoutError:
            if future.done():  # it was the task's own
                raise


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    process.wait()
