"""One question, one answer: for scripts. And how Ctrl-C stops an answer without stopping the program."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from thriftbit.cli.chat_text import harmless, harmless_json

if TYPE_CHECKING:
    from thriftbit.runtime.conversation import Conversation
    from thriftbit.runtime.generation import Generation

_INTERRUPTED = 130


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
    """-> the exit code. On the standard output is the answer, as it is written, and nothing else."""
    last = "\n"

    def write(piece: str, is_thought: bool) -> None:
        nonlocal last
        if not is_thought and not as_json:
            last = piece
            sys.stdout.write(harmless(piece))
            sys.stdout.flush()

    try:
        with ctrl_c_stops(conversation):
            answer = conversation.ask(question, write)
        if as_json:
            print(harmless_json(_document(conversation, answer)))
        elif not last.endswith("\n"):
            print()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read it has enough; Python would complain once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
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
