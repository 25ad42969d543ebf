"""What Thriftbit says while it works: records of Python's `logging`, shown on the error output.

The library logs to loggers below "thriftbit", and the command line shows what they say. A note ("Note: ...") is a
standing fact, so it is shown once however often it is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from thriftbit.cli.printing import notes, output
from thriftbit.strangers import harmless

_library = logging.getLogger("thriftbit")
_logger = logging.getLogger(__name__)
_NOTE = "Note: "


def announce(message: str) -> None:
    """Says what is not a result: what happens next, what to know about it"""
    _logger.info(message)


class MessageHandler(logging.Handler):
    """Shows what is logged: warnings are marked, notes are shown once."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show
        self._noted: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.startswith(_NOTE):
            if message in self._noted:
                return
            self._noted.add(message)
        self._show(f"Warning: {message}" if record.levelno >= logging.WARNING else message)


def announce_at_once(message: str) -> None:
    """Shows a message on the error output, whatever else happens to messages at the time."""
    notes.print(harmless(message), soft_wrap=True)


_handler = MessageHandler(announce_at_once)


def show_messages(level: int = logging.INFO) -> None:
    """From now on messages of this level and above are shown on the error output."""
    _library.setLevel(level)
    if _handler not in _library.handlers:
        _library.addHandler(_handler)


def are_shown() -> bool:
    """Return whether more than warnings is shown."""
    return _library.isEnabledFor(logging.INFO)


@contextmanager
def shown_by(show: Callable[[str], None]) -> Iterator[None]:
    """Inside, messages go to `show` and not to the error output."""
    handler = MessageHandler(show)
    before = [each for each in _library.handlers if isinstance(each, MessageHandler)]
    for each in before:
        _library.removeHandler(each)
    _library.addHandler(handler)
    try:
        yield
    finally:
        _library.removeHandler(handler)
        for each in before:
            _library.addHandler(each)


def message_options() -> list[click.Option]:
    """Return the options on what is told and how, which every command has."""
    quiet = _level_option(["-q", "--quiet"], logging.WARNING, "Show results, warnings and errors only.")
    verbose = _level_option(["-v", "--verbose"], logging.DEBUG, "Show more of what is done.")
    color = click.Option(
        ["--color"],
        type=click.Choice(["auto", "always", "never"]),
        expose_value=False,
        callback=_choose_color,
        help="When to use colors; auto is in a terminal, unless NO_COLOR is set.",
    )
    return [quiet, verbose, color]


def _choose_color(context: click.Context, parameter: click.Parameter, choice: str | None) -> None:
    if choice:
        for console in (output, notes):
            console.choose_color(choice)


def _level_option(names: list[str], level: int, text: str) -> click.Option:
    def choose(context: click.Context, parameter: click.Parameter, chosen: bool) -> None:
        if chosen:
            show_messages(level)

    return click.Option(names, is_flag=True, expose_value=False, callback=choose, help=text)
