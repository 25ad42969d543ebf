"""The program's first moments: where the command `thriftbit` begins.

Loading the command line takes a third of a second, on a busy computer longer. Ctrl-C in that time ends the program with
one line instead of a traceback through a stranger's library. And three things that the libraries take for granted are
put right before any is loaded: that the standard streams are open, and that there is a home folder.
"""

from __future__ import annotations

import os
import signal
import sys

INTERRUPTED = 130


def main() -> None:
    watched = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if watched:
        signal.signal(signal.SIGINT, _leave)
    _open_missing_streams()
    _have_a_home()
    from thriftbit.cli import main as command_line

    if watched:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command_line()


def _leave(number: int, frame: object) -> None:
    os.write(2, b"error: interrupted\n")
    os._exit(INTERRUPTED)  # nothing was begun, so there is nothing to clean up


def _open_missing_streams() -> None:
    """Opens the null device for a standard stream that the caller closed (`thriftbit ... >&-`)

    Python has None for such a stream. Worse, the next file that is opened would get the stream's number, and what is
    printed would go into that file.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _have_a_home() -> None:
    """Sets HOME to the root where the system knows no home for the user, as Docker does for a user without a name"""
    from pathlib import Path

    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"


if __name__ == "__main__":
    main()
