"""What commands print with.

Results go to the standard output, everything else to the error output. Names of files, tensors and metadata come from
strangers, so markup is off (a tensor called "[red]" is shown as that), and `harmless` shows what could drive the
terminal as escapes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from rich.console import Console, RenderableType
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


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """headings: of the columns; ">" before one aligns the column to the right"""
    result = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for heading in headings:
        result.add_column(heading.lstrip(">"), justify="right" if heading[0] == ">" else "left", overflow="fold")
    for row in rows:
        result.add_row(*(Text(harmless(cell).replace("\n", "\\n")) for cell in row))
    return result


def show(block: RenderableType) -> None:
    output.print(block)


def say(text: str, style: str = "") -> None:
    """One line, which the terminal may wrap but we do not, so that it can be copied."""
    output.print(harmless(text), style=style, soft_wrap=True)


def say_cropped(text: str) -> None:
    """One line that ends where the terminal does."""
    output.print(harmless(text), no_wrap=True, overflow="ellipsis")
