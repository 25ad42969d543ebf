"""What a terminal shows while somebody waits: a spinner with a word on what is being done, once a second has passed.

What is typed meanwhile is neither shown in the middle of an answer nor lost: the terminal keeps it for the next prompt.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from thriftbit.cli.messages import are_shown

PATIENCE_SECONDS = 1.0
_BETWEEN_SECONDS = 0.1


class Waiting:
    """`with Waiting(console, words) as waiting: …; waiting.end()`. It shows nothing for the first second, with --quiet,
    and in what is no terminal.

    words: what is being done, asked again while it is shown, as the reason for waiting may change."""

    def __init__(self, console: Console, words: Callable[[], str]) -> None:
        self._console, self._words = console, words
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._console.is_dumb_terminal and are_shown():
            self._thread = threading.Thread(target=self._show, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Takes the spinner away, before anything else is written; may be called again."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _show(self) -> None:
        if self._over.wait(PATIENCE_SECONDS):
            return
        begun = time.monotonic() - PATIENCE_SECONDS
        spinner = Spinner("dots", style="dim")
        with Live(spinner, console=self._console, transient=True, redirect_stdout=False, redirect_stderr=False) as live:
            while not self._over.wait(_BETWEEN_SECONDS):
                text = f"{self._words()} ({time.monotonic() - begun:.0f} s)"
                room = max(8, self._console.width - 4)
                spinner.update(text=Text(text if len(text) <= room else f"{text[: room - 1]}…", style="dim"))
                live.refresh()


@contextmanager
def keys_are_kept() -> Iterator[None]:
    """Inside, what is typed is not shown, and waits for whoever reads next; Ctrl-C works as ever."""
    try:
        import termios

        terminal = sys.stdin.fileno()
        before = termios.tcgetattr(terminal)
    except (ImportError, OSError, ValueError, termios.error):  # Windows does not show what nobody reads
        yield
        return
    kept = termios.tcgetattr(terminal)
    kept[0] &= ~termios.ICRNL  # Enter stays Enter, which sends; as a line feed it would begin a new line
    kept[3] = (kept[3] & ~(termios.ECHO | termios.ICANON)) | termios.NOFLSH  # Ctrl-C throws nothing away
    termios.tcsetattr(terminal, termios.TCSANOW, kept)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)
