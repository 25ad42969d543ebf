"""Progress on the error output, for work that takes over a second.

In a terminal: one line that moves, with the tensor at hand and the time left. Elsewhere (a log, a pipe): a plain line
now and then, so that the log says the work goes on and stays short.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from thriftbit.cli.printing import notes
from thriftbit.strangers import harmless

_PATIENCE_SECONDS = 1.0
_PLAIN_INTERVAL_SECONDS = 15.0


class ProgressLine:
    """`with ProgressLine() as line: line.update("blk.0.attn_q.weight", 0.25)`; the fraction is of bytes."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._next_plain = self._begun + _PLAIN_INTERVAL_SECONDS
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=notes,
            transient=True,
            expand=True,
        )
        self._task = self._bar.add_task("", total=1.0)
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._shown:
            self._bar.stop()

    def update(self, what: str, fraction: float) -> None:
        if not notes.is_terminal:
            self._plain_line(what, fraction)
            return
        self._bar.update(self._task, description=harmless(what).ljust(30), completed=fraction)
        if not self._shown and time.monotonic() - self._begun > _PATIENCE_SECONDS:
            self._shown = True
            self._bar.start()

    def _plain_line(self, what: str, fraction: float) -> None:
        now = time.monotonic()
        if now < self._next_plain or not fraction:
            return
        self._next_plain = now + _PLAIN_INTERVAL_SECONDS
        left_seconds = (now - self._begun) * (1 - fraction) / fraction
        notes.print(f"{fraction:4.0%}  {harmless(what)}, {left_seconds:.0f} s left", soft_wrap=True)
