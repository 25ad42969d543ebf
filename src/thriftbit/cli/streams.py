"""The standard output as a stream that may fail: a full disk, a pipe whose reader went away.

Python raises OSError from whatever line happened to print, and again while it ends. Here such a failure is an error of
the output alone. It names the output and is told once; a reader that went away (`thriftbit find | head`) wants no more,
so nothing is told.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from thriftbit.errors import ThriftbitError


class OutputError(ThriftbitError):
    """The standard output cannot be written."""


class OutputGone(OutputError):  # noqa: N818 - nothing is wrong: whoever read the output has enough
    """Whoever read the standard output is gone."""


class _Raw(io.FileIO):
    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except BrokenPipeError:
            drop_output()
            raise OutputGone("the output's reader is gone") from None
        except OSError as error:
            drop_output()
            raise OutputError(f"the output cannot be written: {error.strerror}") from None


def watch_output() -> None:
    """Makes the standard output raise OutputError, and write every letter wherever it leads."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.fileno() == 1:
        interactive = sys.stdout.isatty()
        sys.stdout.flush()
        buffer = io.BufferedWriter(_Raw(1, "wb", closefd=False))
        # Windows gives pipes an encoding that lacks most of the world's letters
        sys.stdout = io.TextIOWrapper(buffer, "utf-8", "backslashreplace", line_buffering=interactive)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")


def drop_output() -> None:
    """From here on the output goes nowhere, so that nothing fails a second time when the program ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
