"""The chat in a terminal: read, answer, again, until somebody leaves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from rich.text import Text

from thriftbit.cli.chat_commands import COMMANDS, Chat, Next, run_command
from thriftbit.cli.chat_once import ctrl_c_stops
from thriftbit.cli.chat_screen import Screen
from thriftbit.cli.chat_text import harmless
from thriftbit.cli.printing import output
from thriftbit.errors import ThriftbitError
from thriftbit.runtime.conversation import Conversation, Listen
from thriftbit.runtime.engine import EngineDiedError
from thriftbit.runtime.generation import Generation

_PROMPT, _CONTINUED = "> ", ". "


def converse(conversation: Conversation) -> None:
    """Until /exit or Ctrl-D. What goes wrong is told, and the chat goes on."""
    chat = Chat(conversation)
    conversation.announce = _note
    read = _plain_reader if output.is_dumb_terminal else _reader().prompt
    _note(
        f"{conversation.path.name}, context of {conversation.context_tokens:,} tokens. It all stays on this computer."
    )
    _note("/help shows what you can do; Ctrl-C stops an answer, Ctrl-D leaves.")
    following = Next.READ
    while following is not Next.LEAVE:
        output.print()
        try:
            text = read(_PROMPT)
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        try:
            following = run_command(chat, text.strip()) if text.startswith("/") else Next.READ
            if following is Next.ANSWER_AGAIN:
                _answer(conversation, conversation.retry)
            elif not text.startswith("/") and text.strip():
                _answer(conversation, partial(conversation.ask, text))
        except ThriftbitError as error:
            _tell_error(error)


def _tell_error(error: ThriftbitError) -> None:
    output.print(Text(harmless(f"error: {error}"), style="red"))
    if isinstance(error, EngineDiedError):
        _note("The conversation is still here: /retry asks again, with a fresh engine.")


def _answer(conversation: Conversation, ask: Callable[[Listen], Generation]) -> None:
    output.print()
    with ctrl_c_stops(conversation), Screen(output) as screen:
        answer = ask(screen.write)
    _note(_afterwards(conversation, answer))


def _afterwards(conversation: Conversation, answer: Generation) -> str:
    used = answer.prompt_tokens + answer.remembered_tokens + answer.generated_tokens
    words = [f"{answer.tokens_per_second:.1f} tokens a second"] if answer.tokens_per_second else []
    words += [f"{max(0, conversation.context_tokens - used):,} tokens left"] if used else []
    if answer.ended == "stopped":
        words.append("stopped")
    elif answer.ended == "length" and "max-tokens" in conversation.settings:
        words.append("cut at max-tokens")
    return " · ".join(words)


def _note(text: str) -> None:
    output.print(Text(harmless(text), style="dim"))


def _plain_reader(prompt: str) -> str:
    """For a terminal that cannot move its cursor"""
    text = input(prompt)
    while text.endswith("\\"):
        text = f"{text[:-1]}\n{input(_CONTINUED)}"
    return text


def _reader() -> PromptSession[str]:
    keys = KeyBindings()

    @keys.add("enter")
    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.current_line_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return PromptSession(
        history=InMemoryHistory(),  # no file: what was asked is nobody's business tomorrow
        multiline=True,
        key_bindings=keys,
        prompt_continuation=lambda width, line, wraps: "" if wraps else _CONTINUED,
        completer=WordCompleter([f"/{name}" for name in COMMANDS], sentence=True),
        complete_while_typing=False,
        enable_history_search=True,
    )
