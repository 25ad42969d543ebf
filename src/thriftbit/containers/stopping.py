"""Being stopped by a signal without leaving anything behind.

Ctrl-C raises KeyboardInterrupt in Python, so `with` and `finally` clean up. Other signals end the process on the spot,
and a second Ctrl-C can hit the cleaning up itself. These two context managers close both gaps.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = ("SIGTERM", "SIGHUP", "SIGBREAK")  # beside SIGINT, which Python raises as KeyboardInterrupt


@contextmanager
def stop_signals_raise() -> Iterator[None]:
    """Inside, signals that would end the process on the spot raise SystemExit instead, so that files get cleaned up.

    Only where nobody else has taken them over, and only in the main thread, where Python allows it.
    """
    replaced = []
    try:
        if threading.current_thread() is threading.main_thread():
            for name in STOP_SIGNALS:
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                    replaced.append(number)
                    signal.signal(number, _exit)
        yield
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def signals_wait() -> Iterator[None]:
    """Inside, a signal that stops the program only waits; it counts at the end of the block. For steps of moments that
    must not be cut in half, such as removing a file. Other threads than the main one get no signals anyway."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    before = {}
    try:
        for name in ("SIGINT", *STOP_SIGNALS):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.getsignal(number)
                signal.signal(number, lambda number, frame: waiting.append(number))
        yield
    finally:
        for number, handler in reversed(before.items()):  # Ctrl-C last: it may raise at once
            signal.signal(number, handler)
        for number in waiting[:1]:
            os.kill(os.getpid(), number) if os.name != "nt" else signal.raise_signal(number)


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
