"""Progress on the error output, for work that takes over a second.

In a terminal: one line that moves, with what is being done and the time left. Elsewhere (a log, a pipe): a plain line
now and then, so that the log says the work goes on and stays short.

The time left is shown only when it can be trusted: the first steps of long work often take much longer than the others,
or much shorter, and an estimate that starts at ten times the truth is worse than none.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from thriftbit.cli.messages import are_shown
from thriftbit.cli.printing import notes
from thriftbit.sizes import describe_seconds
from thriftbit.strangers import harmless

_PATIENCE_SECONDS = 1.0
_PLAIN_INTERVAL_SECONDS = 15.0


class TimeLeft:
    """An estimate of the time left, from the fractions that are done."""

    _LEAST_SECONDS = 8.0
    _LEAST_FRACTION = 0.05  # or, of work of many hours,
    _LONG_SECONDS, _SMALL_FRACTION = 600.0, 0.01
    _AGREEMENT = 1.3  # factor between the estimates of the whole run and of its second half

    def __init__(self) -> None:
        self._reports: list[tuple[float, float]] = []

    def report(self, seconds: float, fraction: float) -> None:
        """seconds: of a clock that only goes forward"""
        if self._reports and fraction < self._reports[-1][1]:
            self._reports.clear()  # other work has begun
        if not self._reports or fraction > self._reports[-1][1]:
            self._reports.append((seconds, fraction))
        if len(self._reports) > 2000:
            del self._reports[1:-1:2]

    def seconds(self, now: float) -> float | None:
        """Return the time left; None while it cannot be trusted."""
        if len(self._reports) < 3:
            return None
        begun, last = self._reports[0], self._reports[-1]
        done, elapsed = last[1] - begun[1], last[0] - begun[0]
        least_done = self._SMALL_FRACTION if elapsed > self._LONG_SECONDS else self._LEAST_FRACTION
        if elapsed < self._LEAST_SECONDS or done < least_done:
            return None
        middle = next(each for each in reversed(self._reports) if each[0] <= begun[0] + elapsed / 2)
        if last[1] == middle[1]:
            return None
        whole = elapsed / done
        half = (last[0] - middle[0]) / (last[1] - middle[1])
        if not 1 / self._AGREEMENT < whole / half < self._AGREEMENT:
            return None
        left = (1 - last[1]) * half - (now - last[0])
        return left if left >= 0 else None


class ProgressLine:
    """`with ProgressLine() as line: quantize(..., progress=line.update)`"""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._next_plain = self._begun + _PLAIN_INTERVAL_SECONDS
        self._left = TimeLeft()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=notes,
            transient=True,
            expand=True,
        )
        self._task = self._bar.add_task("", total=1.0, left="")
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._shown:
            self._bar.stop()

    def update(self, what: str, fraction: float) -> None:
        """As `Progress` is called"""
        now = time.monotonic()
        self._left.report(now, fraction)
        if not are_shown():
            return
        left_seconds = self._left.seconds(now)
        left = f"{describe_seconds(left_seconds)} left" if left_seconds is not None else ""
        if not notes.is_terminal:
            self._plain_line(now, what, fraction, left)
            return
        self._bar.update(self._task, description=harmless(what).ljust(30), completed=fraction, left=left)
        if not self._shown and now - self._begun > _PATIENCE_SECONDS:
            self._shown = True
            self._bar.start()

    def _plain_line(self, now: float, what: str, fraction: float, left: str) -> None:
        if now < self._next_plain or not fraction:
            return
        self._next_plain = now + _PLAIN_INTERVAL_SECONDS
        notes.print(f"{fraction:4.0%}  {', '.join(part for part in (harmless(what), left) if part)}", soft_wrap=True)
