"""What commands print with.

Results go to the standard output, everything else to the error output. Names of files, tensors and metadata come from
strangers, so markup is off (a tensor called "[red]" is shown as that) and `printable` shows control characters, which
could otherwise drive the terminal, as escapes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")

_PLAIN: dict[str, Any] = {"markup": False, "highlight": False, "emoji": False}
output = Console(**_PLAIN)
notes = Console(stderr=True, **_PLAIN)


def printable(text: str) -> str:
    """-> the text with control characters as escapes; line breaks stay"""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def print_json(document: Any) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False), flush=True)


def print_error(message: str) -> None:
    print("error:", printable(message), file=sys.stderr, flush=True)


def announce(message: str) -> None:
    """What a verb has to say while it works: a download's size, a warning."""
    notes.print(printable(message), soft_wrap=True)


def table(columns: Mapping[str, str], rows: Iterable[Sequence[str]], style: Mapping[int, str] | None = None) -> Table:
    """columns: heading -> "left" or "right"; style: of some rows, by number"""
    result = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for heading, justify in columns.items():
        result.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for number, row in enumerate(rows):
        result.add_row(*(Text(printable(cell)) for cell in row), style=(style or {}).get(number))
    return result


def show(*blocks: RenderableType) -> None:
    for block in blocks:
        output.print(block)


def say(text: str, style: str = "") -> None:
    """One line, which the terminal may wrap but we do not, so that it can be copied."""
    output.print(printable(text), style=style, soft_wrap=True)


def describe_count(count: int) -> str:
    """-> "135 M", "28.3 M", "141 k""""
    return describe_bytes(count).removesuffix("B").removesuffix(" bytes").replace("G", "B")
