"""Kinds of values that options take (4GB, 1%, 90s, 16k), and options that several commands share."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

SIZE_UNITS = {"": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
SIZE_UNITS |= {"b": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
MOST_THREADS = 512  # as in llama.cpp
UNITS_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


class Size(click.ParamType[int]):
    """4GB, 812 MB, 3.5GiB -> bytes"""

    name = "size"

    def __init__(self, least: int = 1) -> None:
        self._least = least

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([a-z]*)", str(value).strip().lower())
        if not found or found[2] not in SIZE_UNITS or float(found[1]) * SIZE_UNITS[found[2]] < self._least:
            self.fail(f"{value!r} is not a size; say 4GB, 812MB or 3.5GiB", parameter, context)
        return int(float(found[1]) * SIZE_UNITS[found[2]])


class Positive(click.ParamType[float]):
    """4.5 -> 4.5"""

    name = "number"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        if not re.fullmatch(r"\d+(\.\d+)?", str(value).strip()) or not float(value):
            self.fail(f"{value!r} is not a number above 0", parameter, context)
        return float(value)


class Tokens(click.ParamType[int]):
    """512, 16k (16,384), 1M -> tokens"""

    name = "tokens"

    def __init__(self, least: int = 1) -> None:
        self._least = least

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([km]?)", str(value).strip().lower())
        if not found:
            self.fail(f"{value!r} is not a number of tokens; say 4096 or 16k", parameter, context)
        tokens = round(float(found[1]) * {"": 1, "k": 1024, "m": 1024**2}[found[2]])
        if tokens < self._least:
            self.fail(f"{value!r} is too small: at least {self._least}", parameter, context)
        return tokens


class Duration(click.ParamType[float]):
    """90, 90s, 2m, 1.5h -> seconds"""

    name = "duration"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", value)
        if not found or not float(found[1]):
            self.fail(f"{value!r} is not a time; say 90s, 2m or 1h", parameter, context)
        return float(found[1]) * UNITS_SECONDS[found[2]]


class Share(click.ParamType[float]):
    """1%, 0.01 -> 0.01"""

    name = "share"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", str(value))
        if not found:
            self.fail(f"{value!r} is not a share; say 1% or 0.01", parameter, context)
        return float(found[1]) / (100 if found[2] else 1)


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
offline_option = click.option(
    "--offline", is_flag=True, help="Never use the network; take Hub models from the local cache."
)
yes_option = click.option("--yes", is_flag=True, help="Download and write without asking.")
threads_option = click.option(
    "--threads",
    type=click.IntRange(1, MOST_THREADS),
    help="Number of threads; by default what was measured as best here.",
)
encoding_threads_option = click.option(
    "--threads", type=click.IntRange(1, MOST_THREADS), help="Threads for encoding; every core by default."
)

_BUDGET = (
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
        type=Tokens(),
        metavar="TOKENS",
        help="Length of the context that has to fit with --fits, in tokens; 8192 by default.",
    ),
    click.option(
        "--min-speed",
        "tokens_per_second",
        type=Positive(),
        metavar="TOKENS",
        help="Minimum predicted speed, in tokens/s; alone or with another limit.",
    ),
)
_NAMES = ("size_bytes", "bits_per_weight", "max_loss", "fits", "context_tokens", "tokens_per_second")


_CHOOSING = ("preset", "plan_file", "size_bytes", "bits_per_weight", "max_loss", "fits", "tokens_per_second")


def from_command_line(context: click.Context, parameter: str) -> bool:
    """Return whether the option was given, and not taken from config.toml."""
    return context.get_parameter_source(parameter) is ParameterSource.COMMANDLINE


def budget_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the command with these options, which it gets as one `request: Request`

    A choice of formats on the command line replaces the one in config.toml, of whichever kind they are."""

    @wraps(function)
    def with_request(**options: Any) -> Any:
        from thriftbit.advice.budget import Request

        context = click.get_current_context()
        if any(from_command_line(context, name) for name in _CHOOSING):
            options |= {name: None for name in _CHOOSING if not from_command_line(context, name)}
        return function(request=Request(**{name: options.pop(name) for name in _NAMES}), **options)

    for option in reversed(_BUDGET):
        with_request = option(with_request)
    return with_request


full_speed_option = click.option(
    "--full-speed", is_flag=True, help="Do not yield to other programs, and keep the model in memory."
)
unload_option = click.option(
    "--unload-after",
    "unload_after_minutes",
    type=click.FloatRange(min=0),
    metavar="MINUTES",
    help="Free the model's memory after this time without a question; 10 by default, 0 for never.",
)


def minutes_to_keep(asked: float | None, full_speed: bool) -> float | None:
    """asked: by the option. Returns after which the model is unloaded; None for never."""
    from thriftbit.runtime.polite import UNLOAD_AFTER_MINUTES

    if asked is None:
        return None if full_speed else UNLOAD_AFTER_MINUTES
    return asked or None


_RUNNING_OPTIONS = (
    click.option(
        "--cache-type-k",
        "key_type",
        default="auto",
        show_default=True,
        metavar="TYPE",
        help="What the context's keys are kept in: f16, q8_0, q4_0 or another of llama.cpp's types.",
    ),
    click.option(
        "--cache-type-v",
        "value_type",
        default="auto",
        show_default=True,
        metavar="TYPE",
        help="The same for its values.",
    ),
    click.option(
        "--placement",
        default="auto",
        show_default=True,
        metavar="PLACE",
        help="Where the weights lie: cpu, gpu, experts (those in main memory), or a number of layers on the GPU.",
    ),
    click.option(
        "--draft",
        default="auto",
        show_default=True,
        metavar="DRAFT",
        help="What guesses tokens ahead: none, ngram, mtp, or a smaller GGUF of the family. Answers stay the same.",
    ),
)


def running_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the command with these options, which it gets as one `running: PlanWishes`."""

    @wraps(function)
    def with_running(key_type: str, value_type: str, placement: str, draft: str, **options: Any) -> Any:
        from thriftbit.machine.running_plan import plan_wishes

        return function(running=plan_wishes(key_type, value_type, placement, draft), **options)

    for option in reversed(_RUNNING_OPTIONS):
        with_running = option(with_running)
    return with_running


# llama.cpp's converter, for models whose class has no table here
_CONVERTER_OPTIONS = (
    click.option(
        "--converter",
        "converter_path",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="llama.cpp's convert_hf_to_gguf.py, for families without a table. By default Thriftbit looks for it.",
    ),
    click.option(
        "--trust-code",
        is_flag=True,
        help="Let Python files in the model's folder run, with the network, if the converter needs them.",
    ),
)


_WORK_OPTIONS = (
    click.option(
        "--workers",
        type=click.IntRange(1, MOST_THREADS),
        help="Processes that calibrate and round at once; one for each core by default. The file is the same.",
    ),
    click.option(
        "--memory",
        "memory_bytes",
        type=Size(),
        metavar="SIZE",
        help="What they may take together, for example 8GB; what is free but 1 GiB by default.",
    ),
    click.option(
        "--cache-limit",
        "cache_limit_bytes",
        type=Size(),
        metavar="SIZE",
        help="What calibrations and maps may take on disk, the oldest going first; twice the largest model by default.",
    ),
)


def work_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the command with these options, which it gets as one `work`, a dictionary of arguments for `calibrate`."""

    @wraps(function)
    def with_work(workers: int | None, memory_bytes: int | None, cache_limit_bytes: int | None, **options: Any) -> Any:
        work = {"workers": workers, "memory_bytes": memory_bytes, "cache_limit_bytes": cache_limit_bytes}
        return function(work=work, **options)

    for option in reversed(_WORK_OPTIONS):
        with_work = option(with_work)
    return with_work


def converter_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the command with these options, which it gets as one `converter: ConverterOptions`."""

    @wraps(function)
    def with_converter(converter_path: Path | None, trust_code: bool, **options: Any) -> Any:
        from thriftbit.sources.converter import ConverterOptions

        return function(converter=ConverterOptions(converter_path, trust_code, _ask), **options)

    for option in reversed(_CONVERTER_OPTIONS):
        with_converter = option(with_converter)
    return with_converter


def _ask(question: str) -> bool:
    """Return a person's answer; no where there is no person at the terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return click.confirm(question, default=False, err=True)
