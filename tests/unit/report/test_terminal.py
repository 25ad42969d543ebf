"""The report in a terminal."""

from __future__ import annotations

import re

import pytest
from rich.console import Console

from thriftbit.measurement.measurement import Measurement
from thriftbit.report import TerminalReport, summarize
from thriftbit.report.text_plot import Dot, plot
from unit.report import rows as made_up


def printed(rows: list[Measurement], width: int) -> list[str]:
    console = Console(width=width, markup=False, highlight=False, emoji=False, color_system=None)
    with console.capture() as capture:
        console.print(TerminalReport(summarize(rows)))
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize("width", [60, 80, 124, 125, 160])
def test_it_fits_and_says_the_same_at_every_width(width: int) -> None:
    lines = printed(made_up.example_rows(), width)
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for level, *_ in made_up.LEVELS:
        assert level in text
    for words in ("986 MB", "1.34 GB", "33.6", "hard to notice", "0.032", "(0.031–0.033)", "cannot tell", "Energy"):
        assert words in text, words
    row = next(line for line in lines if line.startswith("Q4_K_M   "))
    assert row.split()[1:3] == ["986", "MB"]


def test_the_plot_shows_every_file_in_order() -> None:
    lines = printed(made_up.example_rows(), 80)
    marked = [line for line in lines if re.search("[●○]", line)]
    assert [re.sub(r"[^A-Z0-9_]", "", line.partition("│")[2]) for line in marked] == [
        *("Q2_K", "Q3_K_M", "Q4_K_M", "Q6_K", "Q8_0")
    ]
    columns = [min(line.find(dot) for dot in "●○" if dot in line) for line in marked]
    assert columns == sorted(columns)
    assert next(line for line in marked if "●" in line).split("●")[1].split()[0] == "Q4_K_M"
    sizes = lines[lines.index(marked[-1]) + 3]
    assert sizes.split() == ["676", "MB", "1.65", "GB"]


def test_a_plot_of_little_still_has_an_axis() -> None:
    (alone,) = [line for line in plot([Dot("Q4_K_M", 1000, 0.03, True)], 40) if "●" in line]
    assert "Q4_K_M" in alone
    lines = plot([Dot("same", 1000, 0.0, True), Dot("huge", 10**9, 1e9, False)], 60)
    assert any("same" in line for line in lines) and any("huge" in line for line in lines)
    crowded = plot([Dot(f"level {n}", 1000 + n, 0.03, n == 3) for n in range(30)], 60)
    assert all(len(line) <= 60 for line in crowded) and "".join(crowded).count("●") == 1


@pytest.mark.parametrize(
    "rows", [made_up.crowded_rows, made_up.same_level_rows, made_up.lonely_rows, made_up.accuracy_only_rows]
)
def test_whatever_is_missing_it_fits(rows: object) -> None:
    assert callable(rows)
    for width in (60, 160):
        lines = printed(rows(), width)
        assert lines and max(map(len, lines)) <= width


def test_strangers_cannot_drive_the_terminal() -> None:
    text = "\n".join(printed(made_up.hostile_rows(), 100))
    assert not {c for c in text if not c.isprintable()} - {"\n"}
    assert "[bold red]" in text and "\\u202" in text
