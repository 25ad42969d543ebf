"""What commands print with.

Results go to the standard output, everything else to the error output. Names of files, tensors and metadata come from
strangers, so markup is off (a tensor called "[red]" is shown as that), and `harmless` shows what could drive the
terminal as escapes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType, RenderResult
from rich.padding import Padding
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from thriftbit.strangers import harmless, harmless_json

PIPE_WIDTH = 160  # characters, where there is no terminal to ask

_PLAIN: dict[str, Any] = {"markup": False, "highlight": False, "emoji": False}
_IN_TERMINAL = sys.stdout.isatty() or "COLUMNS" in os.environ


class ColorConsole(Console):
    """A console whose colors can be chosen later. Without colors nothing is bold, dim or underlined either."""

    def __init__(self, **settings: Any) -> None:
        self._own_settings = settings
        self.choose_color("auto")

    def choose_color(self, choice: str) -> None:
        """choice: "auto" (in a terminal, unless NO_COLOR is set), "always" or "never" """
        if choice == "auto":
            choice = "never" if os.environ.get("NO_COLOR") else "auto"
        systems: dict[str, Any] = {"auto": "auto", "always": "standard", "never": None}
        super().__init__(**_PLAIN, **self._own_settings, color_system=systems[choice])


output = ColorConsole(width=None if _IN_TERMINAL else PIPE_WIDTH)
notes = ColorConsole(stderr=True)


def print_json(document: Any) -> None:
    print(harmless_json(document), flush=True)


def print_error(message: str) -> None:
    with suppress(OSError):  # where nobody can be told, the exit code remains
        print("error:", harmless(message), file=sys.stderr, flush=True)


class DataTable:
    """Rows of text under headings. Numbers are never cut. Where the terminal is too narrow for all columns, each row
    becomes a line with its first cell and lines with the others.

    headings: of the columns; ">" before one aligns the column to the right. styles: of rows, by their number.
    """

    _GAP = 3
    _TEXT_WIDTH = 16  # characters that a column of text is folded to at most

    def __init__(self, headings: Sequence[str], rows: Iterable[Sequence[str]], styles: Mapping[int, str]) -> None:
        self._headings = headings
        self._rows = [[harmless(cell).replace("\n", "\\n") for cell in row] for row in rows]
        self._styles = styles

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._least_width() <= options.max_width:
            yield self._table()
        else:
            yield from self._stacked()

    def _least_width(self) -> int:
        width = -self._GAP
        for column, heading in enumerate(self._headings):
            cells = max((cell_len(row[column]) for row in self._rows), default=0)
            if heading[0] != ">":
                cells = min(cells, self._TEXT_WIDTH)
            width += max(cells, min(cell_len(heading.lstrip(">")), self._TEXT_WIDTH)) + self._GAP
        return width

    def _table(self) -> Table:
        result = Table(box=None, pad_edge=False, padding=(0, self._GAP, 0, 0), header_style="bold")
        for heading in self._headings:
            is_number = heading[0] == ">"
            justify: JustifyMethod = "right" if is_number else "left"
            result.add_column(heading.lstrip(">"), justify=justify, overflow="fold", no_wrap=is_number)
        for number, row in enumerate(self._rows):
            result.add_row(*map(Text, row), style=self._styles.get(number))
        return result

    def _stacked(self) -> Iterator[RenderableType]:
        for number, (first, *others) in enumerate(self._rows):
            yield Text(first, style=self._styles.get(number, "bold"))
            facts = zip(self._headings[1:], others, strict=True)
            line = ", ".join(f"{heading.lstrip('>')} {cell}" for heading, cell in facts if cell)
            yield Padding(Text(line), (0, 0, 0, 2), expand=False)


def table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], styles: Mapping[int, str] = MappingProxyType({})
) -> DataTable:
    """As for `DataTable`"""
    return DataTable(headings, rows, styles)


def show(block: RenderableType) -> None:
    """Without the blanks that would fill each line up to the terminal's width"""
    segments: list[Segment] = []
    for line in output.render_lines(block, pad=False):
        while line and not line[-1].text.strip() and not line[-1].control:
            line.pop()
        if line and not line[-1].control:
            line[-1] = Segment(line[-1].text.rstrip(), line[-1].style)
        segments += [*line, Segment.line()]
    output.print(Segments(segments), crop=False)


def say(text: str, style: str = "") -> None:
    """One line, which the terminal may wrap but we do not, so that it can be copied."""
    output.print(harmless(text), style=style, soft_wrap=True)


def say_cropped(text: str) -> None:
    """One line that ends where the terminal does."""
    output.print(harmless(text), no_wrap=True, overflow="ellipsis")
