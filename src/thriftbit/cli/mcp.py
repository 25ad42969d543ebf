"""`thriftbit mcp`: what an assistant uses Thriftbit through."""

from __future__ import annotations

import importlib.util
import signal
import sys

import click

from thriftbit.cli.messages import announce
from thriftbit.errors import ThriftbitError


@click.command(short_help="Let an assistant use Thriftbit (Model Context Protocol).")
def mcp() -> None:
    """Offer Thriftbit to an assistant, through the Model Context Protocol, on standard input and output.

    An assistant starts this command by itself, once you have named it there: docs/assistants.md shows how. It can then
    look at this computer, find models and explain them, say which precision fits, measure files, and quantize, for
    which it asks you first. Needs the extra: pip install "thriftbit[mcp]".

    \b
    Examples:
      thriftbit mcp
    """
    if importlib.util.find_spec("mcp") is None:
        raise ThriftbitError(
            'an assistant is answered with the package mcp, which is missing; try: pip install "thriftbit[mcp]"'
        )
    from thriftbit.assistant.running import leave
    from thriftbit.assistant.server import AssistantServer

    if sys.stdin.isatty():
        announce(
            "This waits for an assistant that starts it, and not for a person: docs/assistants.md. Ctrl-C ends it."
        )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    AssistantServer().run("stdio")
