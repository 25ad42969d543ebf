from __future__ import annotations

import io
import logging
import re

import pytest
from rich.console import Console

from thriftbit.cli import progress
from thriftbit.cli.messages import show_messages
from thriftbit.cli.progress import ProgressLine, TimeLeft


@pytest.fixture(autouse=True)
def messages_are_shown() -> None:
    show_messages()


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
        " 30%  blk.119.[red], 35 seconds left",
        " 60%  blk.239.[red], 20 seconds left",
        " 90%  blk.359.[red], 5 seconds left",
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
    assert "blk.0.[red]\\x1b" in shown and "50%" in shown and "left" not in shown
    assert written.getvalue().endswith("\x1b[1A\x1b[2K")  # up, and the line erased


def estimates(steps: list[tuple[float, float]]) -> list[float | None]:
    """steps: seconds and fractions. Returns what is told after each."""
    left, told = TimeLeft(), list[float | None]()
    for seconds, fraction in steps:
        left.report(seconds, fraction)
        told.append(left.seconds(seconds))
    return told


def test_steady_work_is_estimated_after_some_seconds_and_rightly() -> None:
    told = estimates([(second, second / 90) for second in range(90)])
    assert told[:8] == [None] * 8
    for second, seconds in enumerate(told[10:], 10):
        assert seconds == pytest.approx(90 - second)


@pytest.mark.parametrize("slow_start_seconds", [0.5, 5, 20, 60])
def test_a_start_unlike_the_rest_gives_no_wild_estimate(slow_start_seconds: float) -> None:
    """The first hundredth takes as long as whole minutes of the rest; then the rest takes a minute."""
    start = [(slow_start_seconds * part / 4, 0.01 * part / 4) for part in range(5)]
    steps = start + [(slow_start_seconds + second, 0.01 + 0.99 * second / 60) for second in range(1, 60)]
    for (seconds, _), told in zip(steps, estimates(steps), strict=True):
        truth = slow_start_seconds + 60 - seconds
        assert told is None or told < 2 * truth + 2


def test_other_work_begins_anew() -> None:
    first = [(second, second / 20) for second in range(21)]
    again = estimates([*first, *((20 + second, second / 100) for second in range(1, 60))])
    assert again[20] == 0 and again[22] is None and again[60] == pytest.approx(60, rel=0.05)


def test_work_that_stands_still_is_not_about_to_end() -> None:
    left = TimeLeft()
    for second in range(30):
        left.report(second, second / 60)
    assert left.seconds(30) == pytest.approx(30) and left.seconds(75) is None


def test_quiet_shows_no_progress(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    show_messages(logging.WARNING)
    clock = Clock(monkeypatch)
    with ProgressLine() as line:
        for step in range(40):
            clock.seconds += 5
            line.update("rounding", step / 40)
    assert capsys.readouterr().err == ""
