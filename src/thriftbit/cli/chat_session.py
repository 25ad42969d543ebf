"""The chat in a terminal: read, answer, again, until somebody leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from rich.table import Table
from rich.text import Text

from thriftbit.cli.chat_screen import Screen, ctrl_c_stops
from thriftbit.cli.messages import shown_by
from thriftbit.cli.printing import output
from thriftbit.cli.waiting import Waiting, keys_are_kept
from thriftbit.errors import ThriftbitError, UsageError, shown
from thriftbit.machine.running_plan import NO_DRAFT
from thriftbit.runtime.conversation import Conversation, Listen, Statistics
from thriftbit.runtime.engine import EngineDiedError
from thriftbit.runtime.generation import Generation
from thriftbit.sizes import describe_bytes
from thriftbit.strangers import harmless

_PROMPT, _CONTINUED = "> ", ". "
_FAREWELLS = {"exit", "quit", "bye", ":q", "/bye", "/quit", "/q"}
_DEFAULTS = {"seed": "random", "max-tokens": "all that fit", "think": "off"}
_BUSY_CORES = 0.5  # of others; from there on a polite model is clearly slower


def converse(conversation: Conversation, *, plain: bool = False, file: Path | None = None) -> None:
    """Until /exit or Ctrl-D. What goes wrong is told, and the chat goes on.

    plain: answers as they are written, without Markdown. file: the conversation was read from it, and /save may replace
    it."""
    with shown_by(_note):
        _converse(Chat(conversation, {file.resolve()} if file else set(), plain=plain))


def _converse(chat: Chat) -> None:
    conversation = chat.conversation
    read = _plain_reader if output.is_dumb_terminal else _reader().prompt
    _note(f"{conversation.path.name}, with {conversation.plan.describe()}. It all stays on this computer.")
    _note("/help shows what you can do; Ctrl-C stops an answer, Ctrl-D leaves.")
    if conversation.messages:
        _note(f"Going on after {_questions(conversation)}.")
    following = Next.READ
    while following is not Next.LEAVE:
        output.print()
        try:
            text = read(_PROMPT)
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if text.lower() in _FAREWELLS:
            _note("Leaving, as /exit and Ctrl-D do. A space before the word asks the model about it.")
            return
        try:
            following = run_command(chat, text.strip()) if text.startswith("/") else Next.READ
            if following is Next.ANSWER_AGAIN:
                _answer(chat, conversation.retry)
            elif not text.startswith("/") and text.strip():
                _answer(chat, partial(conversation.ask, text))
        except ThriftbitError as error:
            _tell_error(error)


def _tell_error(error: ThriftbitError) -> None:
    output.print(Text(harmless(f"error: {error}"), style="red"))
    if isinstance(error, EngineDiedError):
        _note("The conversation is still here: /retry asks again, with a fresh engine.")


def _answer(chat: Chat, ask: Callable[[Listen], Generation]) -> None:
    conversation = chat.conversation
    output.print()
    told: list[str] = []  # while the answer is written; shown below it, and not in the middle of a line
    with (
        keys_are_kept(),
        ctrl_c_stops(conversation),
        Waiting(output, _reason_to_wait(conversation)) as waiting,
        Screen(output, waiting, chat.plain) as screen,
        shown_by(told.append),
    ):
        answer = ask(screen.write)
    for sentence in told:
        _note(sentence)
    _note(_afterwards(conversation, answer))


def _reason_to_wait(conversation: Conversation) -> Callable[[], str]:
    """Yield a function that tells what the model is doing before it writes."""
    load = conversation.load_of_others()

    def words() -> str:
        if conversation.is_polite and load() >= _BUSY_CORES:
            return "other programs are busy and come first; /full-speed changes that. Reading the question"
        return "reading the question"

    return words


def _afterwards(conversation: Conversation, answer: Generation) -> str:
    used = answer.prompt_tokens + answer.remembered_tokens + answer.generated_tokens
    words = [f"{answer.tokens_per_second:.1f} tokens/s"] if answer.tokens_per_second else []
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


@dataclass
class Chat:
    """What commands work on. own_files: that this chat wrote or read, and may replace. plain: answers are shown as they
    are written, without Markdown."""

    conversation: Conversation
    own_files: set[Path] = field(default_factory=set)
    plain: bool = False


class Next(Enum):
    """What the chat does after a command"""

    READ = auto()
    ANSWER_AGAIN = auto()
    LEAVE = auto()


def run_command(chat: Chat, line: str) -> Next:
    """line: with its "/". Raises ThriftbitError for what is wrong with it."""
    name, _, argument = line[1:].partition(" ")
    if name not in COMMANDS:
        raise UsageError(
            f"there is no command /{shown(name)[1:-1]}; /help lists them. To ask something that begins with a slash, "
            "put a space before it"
        )
    return COMMANDS[name][2](chat, argument.strip()) or Next.READ


def _help(chat: Chat, argument: str) -> None:
    _columns((usage, meaning) for usage, meaning, _ in COMMANDS.values())
    _note("Enter sends; Alt-Enter, Ctrl-J or a backslash at the end begins a new line; what is pasted stays whole.")
    _note("Ctrl-C stops an answer, Ctrl-D leaves, the up arrow brings back what was typed.")
    _note("You can type while the model answers: it waits for the next prompt.")
    _note("Nothing is sent anywhere, and nothing is kept unless you /save it.")


def _system(chat: Chat, argument: str) -> None:
    if argument:
        chat.conversation.system = "" if argument == "none" else argument
    _note(f"system: {chat.conversation.system or 'nothing; the model’s own applies if it has one'}")


def _set(chat: Chat, argument: str) -> None:
    from thriftbit.runtime.chat_settings import SETTINGS, parse_setting

    settings = chat.conversation.settings
    name, _, value = argument.replace("=", " ").partition(" ")
    if value.strip() == "default":
        settings.pop(name.lower().replace("_", "-"), None)
    elif argument:
        settings.update([parse_setting(name, value.strip())])
    defaults = chat.conversation.defaults()
    known = {name: f"{value:g}" for name, value in defaults.items()} | _DEFAULTS
    _columns(
        (f"{name} {_value(settings[name]) if name in settings else _default(known.get(name))}", each.meaning)
        for name, each in SETTINGS.items()
    )


def _value(value: float | bool) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _default(known: str | None) -> str:
    return f"{known} (default)" if known else "default"


def _save(chat: Chat, argument: str) -> None:
    from thriftbit.runtime.conversation_file import remember, save

    path = _file(argument, "save")
    save(chat.conversation, path, force=path.resolve() in chat.own_files)
    remember(chat.conversation, path)
    chat.own_files.add(path.resolve())
    _note(f"saved: {path}; `thriftbit chat -c` continues it")


def _load(chat: Chat, argument: str) -> None:
    from thriftbit.runtime.conversation_file import load

    path = _file(argument, "load")
    load(chat.conversation, path)
    chat.own_files.add(path.resolve())
    _note(f"loaded: {path}, {_questions(chat.conversation)}")


def _questions(conversation: Conversation) -> str:
    count = len(conversation.messages) // 2
    return "1 question with its answer" if count == 1 else f"{count} questions with answers"


def _file(argument: str, name: str) -> Path:
    if not argument:
        raise UsageError(f"/{name} FILE: name a file, for example /{name} chat.json")
    return Path(argument).expanduser()


def _retry(chat: Chat, argument: str) -> Next:
    return Next.ANSWER_AGAIN


def _clear(chat: Chat, argument: str) -> None:
    chat.conversation.clear()
    _note("forgotten; the system prompt and the settings stay")


def _statistics(chat: Chat, argument: str) -> None:
    known = chat.conversation.statistics()
    memory = "not running"
    if known.unloaded:
        memory = f"unloaded, as {known.unloaded}; the next question loads it"
    elif known.memory_bytes:
        memory = f"{describe_bytes(known.memory_bytes)}, of the process that runs the model"
    manner = "politely: other programs come first" if known.polite else "at full speed"
    threads = f", with {_threads(known)}" if known.threads else ""
    rows = [
        ("writing", f"{known.tokens_per_second:.1f} tokens/s" if known.tokens_per_second else "not yet"),
        ("reading", f"{known.prompt_tokens_per_second:.1f} tokens/s" if known.tokens_per_second else "not yet"),
        ("memory", memory),
        ("runs", f"{manner}{threads}"),
        ("context", f"{known.used_tokens:,} of {known.context_tokens:,} tokens used, {known.left_tokens:,} left"),
    ]
    if known.plan.draft != NO_DRAFT:
        rows.append(("drafts", _drafts(known)))
    if known.dropped_messages:
        rows.append(("left out", f"the oldest {known.dropped_messages} messages, which the model no longer sees"))
    _columns(rows)
    _note("all measured here; the speeds are of the last answer")


def _drafts(known: Statistics) -> str:
    if not known.drafted_tokens:
        return "none yet"
    share = known.accepted_tokens / known.drafted_tokens
    return f"{known.accepted_tokens:,} of {known.drafted_tokens:,} guessed tokens accepted ({share:.0%})"


def _threads(known: Statistics) -> str:
    all_of_them = f"{known.threads} {'thread' if known.threads == 1 else 'threads'}"
    return all_of_them if known.threads_now in (None, known.threads) else f"{known.threads_now} of {all_of_them} now"


def _full_speed(chat: Chat, argument: str) -> None:
    chat.conversation.go_at_full_speed()
    _note("from the next answer on the model no longer lets other programs go first")


def _plain(chat: Chat, argument: str) -> None:
    chat.plain = not chat.plain
    _note(f"answers are shown {'as they are written' if chat.plain else 'with Markdown'}")


def _exit(chat: Chat, argument: str) -> Next:
    return Next.LEAVE


def _columns(rows: Iterable[tuple[str, str]]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(overflow="fold")
    table.add_column(style="dim", overflow="fold")
    for first, second in rows:
        table.add_row(Text(harmless(first)), Text(harmless(second)))
    output.print(table)


COMMANDS: dict[str, tuple[str, str, Callable[[Chat, str], Next | None]]] = {
    "help": ("/help", "this", _help),
    "system": ("/system [TEXT]", "the system prompt, which the model reads first; /system none removes it", _system),
    "set": ("/set [NAME VALUE]", "how it answers, for example /set temperature 0.2; VALUE default undoes it", _set),
    "retry": ("/retry", "another answer to the last question", _retry),
    "save": ("/save FILE", "write the conversation", _save),
    "load": ("/load FILE", "go on with one that was saved", _load),
    "stats": ("/stats", "speed, memory, and how much of the context is left", _statistics),
    "full-speed": ("/full-speed", "let the model compete with other programs", _full_speed),
    "plain": ("/plain", "show answers as they are written, without Markdown; again to undo it", _plain),
    "clear": ("/clear", "forget the conversation", _clear),
    "exit": ("/exit", "leave", _exit),
}
