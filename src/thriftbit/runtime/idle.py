"""Unloads a model that nobody asks anything: after a while, or at once where memory has become short.

A thread looks now and then. Whoever uses the model holds it meanwhile, so the model is never unloaded during an answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from thriftbit.runtime.polite import Readings, read_now, reason_to_unload

_MOST_SECONDS_BETWEEN_LOOKS = 5.0
_LOOKS = 10  # at least, in the time after which it is unloaded


class IdleWatch:
    """`with IdleWatch(unload, 10) as watch:`, and `with watch.using():` around every use

    unload: is given the reason, in words, in the watch's own thread; called again and again while nobody uses the
    model. unload_after_minutes: None for not until memory is short.
    """

    def __init__(
        self,
        unload: Callable[[str], None],
        unload_after_minutes: float | None,
        read: Callable[[], Readings] = read_now,
    ) -> None:
        self._unload = unload
        self._after_minutes = unload_after_minutes
        self._read = read
        self._in_use = threading.RLock()
        self._used = time.monotonic()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._ended.clear()
        self._used = time.monotonic()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Also where `__enter__` was never called, as what is watched may have failed before."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @contextmanager
    def using(self) -> Iterator[None]:
        with self._in_use:
            try:
                yield
            finally:
                self._used = time.monotonic()

    def _watch(self) -> None:
        while not self._ended.wait(seconds_between_looks(self._after_minutes)):
            if self._in_use.acquire(blocking=False):
                try:
                    idle_seconds = time.monotonic() - self._used
                    if reason := reason_to_unload(idle_seconds, self._after_minutes, self._read()):
                        self._unload(reason)
                finally:
                    self._in_use.release()


def seconds_between_looks(unload_after_minutes: float | None) -> float:
    if unload_after_minutes is None:
        return _MOST_SECONDS_BETWEEN_LOOKS
    return min(_MOST_SECONDS_BETWEEN_LOOKS, 60 * unload_after_minutes / _LOOKS)
