"""An answer on the screen while it is being written.

Markdown is finished in blocks: a paragraph, a list, a fenced program. What is finished is printed once and scrolls away
like any text; only the block that is still being written is drawn again with every piece, at most as many of its lines
as the terminal has. So there is no answer too long, and what scrolled up is never touched. A terminal that cannot move
its cursor gets the text as it comes.

Links are shown with their address, and not made clickable: the words of a link may lie about where it leads. HTML is
shown as it is written.
"""

from __future__ import annotations

import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment
from rich.text import Text

from thriftbit.cli.messages import announce_at_once, shown_by
from thriftbit.cli.waiting import Waiting
from thriftbit.strangers import harmless, harmless_json

if TYPE_CHECKING:
    from thriftbit.runtime.conversation import Conversation
    from thriftbit.runtime.generation import Generation

_INTERRUPTED = 130
_SECONDS_BETWEEN = 0.08
_LINES_LEFT = 2  # of the terminal, free below what is drawn
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_GOES_ON = re.compile(r"\s|[-*+] |\d+[.)] |>")  # a line that belongs to the list or quotation before the empty line


class Screen:
    """`with Screen(console, waiting) as screen: conversation.ask(question, screen.write)`"""

    def __init__(self, console: Console, waiting: Waiting | None = None, plain: bool = False) -> None:
        """waiting: ends with the first piece. plain: the text as it is written, without Markdown"""
        self._console = console
        self._end_waiting = waiting.end if waiting else lambda: None
        self._moves = console.is_terminal and not console.is_dumb_terminal and not plain
        self._live: Live | None = None
        self._last = ""
        self._tail = ""
        self._is_thought = False
        self._drawn_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end_waiting()
        if self._live is not None:
            self._live.update(Text(""), refresh=True)
            self._live.stop()
            if self._tail.strip():
                self._console.print(self._rendered(self._tail))
        elif self._last and not self._last.endswith("\n"):
            self._console.print()

    def write(self, piece: str, is_thought: bool) -> None:
        self._end_waiting()
        piece = written(piece)
        if not self._moves:
            self._last = piece or self._last
            self._console.print(Text(piece), end="", soft_wrap=True)
            return
        live = self._drawing()
        if is_thought != self._is_thought:
            self._finish(len(self._tail))
            self._is_thought = is_thought
        self._tail += piece
        if "\n" in piece:
            self._finish(finished_length(self._tail))
        if time.monotonic() - self._drawn_at > _SECONDS_BETWEEN:
            live.update(_Bottom(self._rendered(self._tail)), refresh=True)
            self._drawn_at = time.monotonic()

    def _drawing(self) -> Live:
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stdout=False)
            self._live.start()
        return self._live

    def _finish(self, length: int) -> None:
        """The first `length` characters of what is drawn are printed, and not drawn again."""
        finished, self._tail = self._tail[:length], self._tail[length:]
        if finished.strip():
            self._drawing().update(Text(""), refresh=True)
            self._console.print(self._rendered(finished))
            self._console.print()

    def _rendered(self, text: str) -> RenderableType:
        return Text(text.strip("\n"), style="dim italic") if self._is_thought else markdown(text)


class _Bottom:
    """As many of the last lines as the terminal shows"""

    def __init__(self, content: RenderableType) -> None:
        self._content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._content, options.update(height=None), pad=False)
        for line in lines[-max(1, console.size.height - _LINES_LEFT) :]:
            yield from line
            yield Segment.line()


def finished_length(text: str) -> int:
    """Return how much of Markdown that is still being written nothing can change any more: up to the last empty line
    that is outside a fenced block, and after which something begins that is no part of what stood before."""
    finished = position = 0
    fence, empty_at = "", 0
    for line in text.splitlines(keepends=True):
        mark = _FENCE.match(line)
        if not fence and empty_at and line.strip() and line.endswith("\n"):
            if not _GOES_ON.match(line):
                finished = empty_at
            empty_at = 0
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence) and not line[mark.end() :].strip():
            fence = ""
        position += len(line)
        if not fence and not line.strip():
            empty_at = position
    return finished


def markdown(text: str) -> Markdown:
    """Return the text as it is printed. text: harmless already."""
    result = Markdown(text, code_theme="ansi_dark", hyperlinks=False)
    result.parsed = list(_without_html(result.parsed))
    return result


def _without_html(tokens: list[Any]) -> Iterator[Any]:
    """Yield the parsed Markdown in which HTML is text: rich would leave
    it out, and an answer about HTML be nonsense."""
    for token in tokens:
        if token.type == "html_inline":
            token.type = "text"
        elif token.type == "html_block":
            kind = type(token)
            text = kind("text", "", 0, content=token.content.rstrip("\n"))
            yield kind("paragraph_open", "p", 1, block=True)
            yield kind("inline", "", 0, content=token.content, children=[text], block=True)
            yield kind("paragraph_close", "p", -1, block=True)
            continue
        if token.children:
            token.children = list(_without_html(token.children))
        yield token


def written(piece: str) -> str:
    """Return a piece of what a model writes, for the terminal: tabs as spaces, and nothing that could drive it."""
    return harmless(piece.replace("\t", "    ").replace("\r", ""))


@contextmanager
def ctrl_c_stops(conversation: Conversation) -> Iterator[None]:
    """Inside, Ctrl-C ends the answer that is being written, and nothing else."""

    def stop(number: int, frame: object) -> None:
        # not here: the signal may have come in the middle of what is being sent
        threading.Thread(target=conversation.stop, daemon=True).start()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def answer_once(conversation: Conversation, question: str, as_json: bool) -> int:
    """Return the exit code. On the standard output is the answer, as it is written, and nothing else. What is to be
    told in the middle of a line waits for its end, as a terminal shows both outputs."""
    last = "\n"
    waiting: list[str] = []

    def tell(message: str) -> None:
        if last.endswith("\n"):
            announce_at_once(message)
        else:
            waiting.append(message)

    def write(piece: str, is_thought: bool) -> None:
        nonlocal last
        if not is_thought and not as_json:
            last = piece
            sys.stdout.write(written(piece))
            sys.stdout.flush()

    with ctrl_c_stops(conversation), shown_by(tell):
        answer = conversation.ask(question, write)
    if as_json:
        print(harmless_json(_document(conversation, answer)))
    elif not last.endswith("\n"):
        print()
    sys.stdout.flush()
    for message in waiting:
        announce_at_once(message)
    return _INTERRUPTED if answer.ended == "stopped" else 0


def _document(conversation: Conversation, answer: Generation) -> dict[str, Any]:
    return {
        "model": conversation.path.name,
        "answer": answer.text,
        "thought": answer.thought,
        "ended": {"stop": "by itself", "length": "no more room"}.get(answer.ended, answer.ended),
        "prompt_tokens": answer.prompt_tokens + answer.remembered_tokens,
        "generated_tokens": answer.generated_tokens,
        "prompt_tokens_per_second": answer.prompt_tokens_per_second,
        "tokens_per_second": answer.tokens_per_second,
        "context_tokens": conversation.context_tokens,
        "provenance": "measured here",
    }
