"""Options that say what a file may take, in place of a preset's name."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from thriftbit.cli.measure import Share

SIZE_UNITS = {"": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
SIZE_UNITS |= {"b": 1, "k": 1e3, "m": 1e6, "g": 1e9}


class Size(click.ParamType[int]):
    """4GB, 812 MB, 3.5GiB -> bytes"""

    name = "size"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(value).strip().lower())
        if not found or found[2] not in SIZE_UNITS or not float(found[1]):
            self.fail(f"{value!r} is not a size; say 4GB, 812MB or 3.5GiB", parameter, context)
        return int(float(found[1]) * SIZE_UNITS[found[2]])


class Positive(click.ParamType[float]):
    """4.5 -> 4.5"""

    name = "number"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        if not re.fullmatch(r"\d+(\.\d+)?", str(value).strip()) or not float(value):
            self.fail(f"{value!r} is not a number above 0", parameter, context)
        return float(value)


_OPTIONS = (
    click.option("--size", "size_bytes", type=Size(), metavar="SIZE", help="The best file of at most, say, 4GB."),
    click.option(
        "--bpw", "bits_per_weight", type=Positive(), metavar="BITS", help="The best file of, say, 4.5 bits per weight."
    ),
    click.option(
        "--max-loss",
        type=Share(),
        metavar="SHARE",
        help="The smallest file whose perplexity is predicted to rise by no more than, say, 1%.",
    ),
    click.option("--fits", is_flag=True, help="The best file that fits this computer's free memory."),
    click.option(
        "--context",
        "context_tokens",
        type=click.IntRange(min=1),
        metavar="TOKENS",
        help="How much text has to fit with --fits; 8192 by default.",
    ),
    click.option(
        "--min-speed",
        "tokens_per_second",
        type=Positive(),
        metavar="TOKENS",
        help="It shall write so many tokens a second here, as predicted; alone or beside the others.",
    ),
)
_NAMES = ("size_bytes", "bits_per_weight", "max_loss", "fits", "context_tokens", "tokens_per_second")


def budget_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """-> the command with these options, which it gets as one `request: Request`"""

    @wraps(function)
    def with_request(**options: Any) -> Any:
        from thriftbit.advice.budget import Request

        return function(request=Request(**{name: options.pop(name) for name in _NAMES}), **options)

    for option in reversed(_OPTIONS):
        with_request = option(with_request)
    return with_request
