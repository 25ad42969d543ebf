"""Runs a command of Thriftbit for an assistant, in a process of its own.

The problem: an assistant's request may be cancelled while a model is being quantized, two requests may come at once,
and nothing but the protocol may reach the standard output. The choice: each request is one command with `--json`. A
cancelled one ends as Ctrl-C would end it, and what the command prints is its answer, errors included.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import anyio
import psutil

Tell = Callable[[str, float], Awaitable[None]]

_PROGRESS = re.compile(r"\s*(\d{1,3})%  (.*)")  # as `cli/progress.py` writes it where there is no terminal
_PATIENCE_SECONDS = 10.0  # for a cancelled command to remove what is unfinished
_LONGEST_LINE_BYTES = 1 << 20
_INTERRUPTED = 130


@dataclass(frozen=True)
class Outcome:
    """document: what the command printed. messages: what it said beside that, without progress. exit_code: README.md
    lists them."""

    document: dict[str, Any]
    messages: tuple[str, ...]
    exit_code: int

    @property
    def error(self) -> str | None:
        """The sentence that says why there is no result; None where there is one."""
        error = self.document.get("error")
        return error["message"] if isinstance(error, dict) and "message" in error else None


async def run_command(name: str, options: Sequence[str], arguments: Sequence[str], tell: Tell) -> Outcome:
    """name: of the command. options: each in one piece, "--to=Q4_K_M". arguments: whatever a stranger called them, they
    are no options. tell: hears what is being done, and the share that is done.

    Raises RuntimeError for a command that ended without a document, which is a mistake of ours."""
    command = [sys.executable, "-P", "-m", "thriftbit", name, *options, "--json", "--", *arguments]
    with anyio.CancelScope(shield=True):  # a command that was just started can be ended
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE_BYTES,
        )
    assert process.stdout is not None and process.stderr is not None
    try:
        printed, messages = await asyncio.gather(process.stdout.read(), _messages(process.stderr, tell))
        exit_code = await process.wait()
    except BaseException:
        with anyio.CancelScope(shield=True):
            await _end(process)
        raise
    try:
        document = json.loads(printed)
    except ValueError:
        raise RuntimeError(f"`{name}` ended with status {exit_code} and no answer:\n" + "\n".join(messages)) from None
    return Outcome(document, tuple(messages), exit_code)


def leave(number: int, frame: object) -> None:
    """Ends the commands that run, and this process. For a signal handler: the SDK waits for the next line on the
    standard input, which nothing but a line ends."""
    commands = psutil.Process().children()
    for command in commands:
        with suppress(psutil.Error):
            command.terminate() if sys.platform == "win32" else command.send_signal(signal.SIGINT)
    for command in psutil.wait_procs(commands, _PATIENCE_SECONDS)[1]:
        with suppress(psutil.Error):
            command.kill()
    os._exit(_INTERRUPTED)


async def _messages(stream: asyncio.StreamReader, tell: Tell) -> list[str]:
    """Return the lines, without those that tell of progress, which are passed on."""
    messages: list[str] = []
    async for line in stream:
        text = line.decode(errors="replace").rstrip()
        if found := _PROGRESS.fullmatch(text):
            await tell(found[2], int(found[1]) / 100)
        elif text:
            messages.append(text)
    return messages


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate() if sys.platform == "win32" else process.send_signal(signal.SIGINT)
    with suppress(TimeoutError):
        await asyncio.wait_for(process.communicate(), _PATIENCE_SECONDS)
    if process.returncode is None:
        process.kill()
        await process.wait()
