"""Loss against size in a terminal: characters only, readable without colour.

Loss is on a logarithmic axis, as levels differ by factors, and the axis is ruled where its words change. Which file is
meant stands beside its dot; where there is no room the dot stands alone, and the table has the rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.cells import cell_len, set_cell_size

from thriftbit.report.numbers import significant
from thriftbit.report.verdict import LOSS_SCALE
from thriftbit.sizes import describe_bytes
from thriftbit.strangers import shortened

ROWS_PER_DECADE = 4
MOST_ROWS = 16
GUTTER = max(len(word) for word, _ in LOSS_SCALE) + 1
LEAST_LOSS, MOST_LOSS = 1e-4, 100.0  # what is beyond is drawn at the edge
LONGEST_LABEL = 18
DOT, CHOSEN_DOT, RULE = "○", "●", "┈"


@dataclass(frozen=True)
class Dot:
    """One file: size_bytes and its loss, the mean KL divergence in nats."""

    label: str
    size_bytes: int
    loss: float
    chosen: bool


def plot(dots: Sequence[Dot], width: int) -> list[str]:
    """dots: at least one. width: in characters, at least 40. Return the lines."""
    losses = [min(max(dot.loss, LEAST_LOSS), MOST_LOSS) for dot in dots]
    bottom, top = math.log10(min(losses)) - 0.15, math.log10(max(losses)) + 0.15
    height = min(max(round((top - bottom) * ROWS_PER_DECADE), 3), MOST_ROWS)
    columns = width - GUTTER - 1

    def row_of(loss: float) -> int:
        return round((top - math.log10(loss)) / (top - bottom) * (height - 1))

    field = [[" "] * columns for _ in range(height)]
    gutter = [""] * height
    for (_, limit), (word, _) in pairwise(LOSS_SCALE):
        row = row_of(limit)
        if 0 < row < height - 1:
            field[row] = [RULE] * columns
            gutter[row] = significant(limit, 1)
            gutter[row - 1] = gutter[row - 1] or word
    lowest = next(word for word, limit in LOSS_SCALE if min(losses) < limit)
    gutter[-1] = gutter[-1] or lowest
    if not any(gutter[:-1]):
        gutter[0] = significant(10**top, 1)
    places = [(row_of(loss), _column(dot, dots, columns), dot) for dot, loss in zip(dots, losses, strict=True)]
    for row, column, dot in places:
        field[row][column] = CHOSEN_DOT if dot.chosen else DOT
    for row, column, dot in sorted(places, key=lambda place: not place[2].chosen):
        _write_label(field[row], column, shortened(dot.label, LONGEST_LABEL))
    lines = [f"{word:>{GUTTER - 1}} │{''.join(cells)}" for word, cells in zip(gutter, field, strict=True)]
    return [*(line.rstrip() for line in lines), f"{'':{GUTTER}}└{'─' * columns}", _sizes(dots, columns)]


def _column(dot: Dot, dots: Sequence[Dot], columns: int) -> int:
    """Linear in size, with room at both ends"""
    smallest = min(other.size_bytes for other in dots)
    span = max(other.size_bytes for other in dots) - smallest
    return 2 + round((dot.size_bytes - smallest) / span * (columns - 5)) if span else columns // 2


def _write_label(cells: list[str], column: int, label: str) -> None:
    """Beside the dot, on the right if there is room, else on the left; the cell after a wide character stays empty"""
    if not label:
        return
    text = [" ", *(cell for c in label for cell in (c, *[""] * (cell_len(c) - 1))), " "]
    for start in (column + 1, column - len(text)):
        end = start + len(text)
        if start >= 0 and end <= len(cells) and {*cells[start:end]} <= {" ", RULE}:
            cells[start:end] = text
            return


def _sizes(dots: Sequence[Dot], columns: int) -> str:
    smallest = describe_bytes(min(dot.size_bytes for dot in dots))
    largest = describe_bytes(max(dot.size_bytes for dot in dots))
    if smallest == largest:
        return f"{'':{GUTTER + 1}}{smallest:^{columns}}".rstrip()
    return f"{'':{GUTTER + 1}}{set_cell_size(smallest, columns - len(largest))}{largest}"
