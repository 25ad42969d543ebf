from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from thriftbit.cli import progress
from thriftbit.cli.progress import ProgressLine


class Clock:
    """Time that passes when told to"""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1000.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.seconds)


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock(monkeypatch)
    with ProgressLine() as line:
        for step in range(400):  # 50 seconds
            clock.seconds += 0.125
            line.update(f"blk.{step}.[red]", (step + 1) / 400)
    assert capsys.readouterr().err.splitlines() == [
        " 30%  blk.119.[red], 35 s left",
        " 60%  blk.239.[red], 20 s left",
        " 90%  blk.359.[red], 5 s left",
    ]


def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    written = io.StringIO()
    monkeypatch.setattr(progress, "notes", Console(file=written, force_terminal=True, width=80, markup=False))
    return written


def test_quick_work_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, written = Clock(monkeypatch), terminal(monkeypatch)
    with ProgressLine() as line:
        for step in range(9):
            clock.seconds += 0.1
            line.update("blk.0.attn_q.weight", step / 9)
    assert written.getvalue() == ""


def test_long_work_shows_a_line_that_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, written = Clock(monkeypatch), terminal(monkeypatch)
    with ProgressLine() as line:
        clock.seconds += 2
        line.update("blk.0.[red]\x1b", 0.25)
        line.update("blk.0.[red]\x1b", 0.5)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.getvalue())
    assert "blk.0.[red]\\x1b" in shown and "50%" in shown and "left" in shown
    assert written.getvalue().endswith("\x1b[1A\x1b[2K")  # up, and the line erased
