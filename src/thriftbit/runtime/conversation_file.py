"""Conversations on disk: one JSON document, which appears whole or not at all.

A file that somebody sends is read as what it is, a stranger's: every part is checked, and nothing in it names a file.
"""

from __future__ import annotations

import json
from pathlib import Path

from thriftbit.containers.atomic_file import AtomicFile
from thriftbit.containers.regular_files import read_regular
from thriftbit.errors import ThriftbitError, shown
from thriftbit.folders import data_folder
from thriftbit.machine.private_files import write_private
from thriftbit.runtime.chat_settings import SETTINGS, checked
from thriftbit.runtime.conversation import Conversation

_KIND, _VERSION = "thriftbit conversation", 1
_LARGEST_BYTES = 64 << 20
_TURN = ("user", "assistant")


def save(conversation: Conversation, path: Path, *, force: bool = False) -> None:
    """Raises ThriftbitError if it cannot be written, or exists and `force` is not given; the conversation goes on."""
    document = {
        "kind": _KIND,
        "version": _VERSION,
        "model": conversation.path.name,
        "system": conversation.system,
        "settings": conversation.settings,
        "messages": conversation.messages,
    }
    # a model may write half a character; that is kept as an escape, which every reader of JSON takes
    content = (json.dumps(document, indent=1) + "\n").encode()
    with AtomicFile(path.expanduser(), len(content), force=force, private=True) as file:
        file.write(content)


def remember(conversation: Conversation, path: Path) -> None:
    """Notes that this conversation, with this model, was the last that was saved; only its user can read the note."""
    last = {"conversation": str(path.expanduser().absolute()), "model": str(conversation.path.absolute())}
    write_private(_last_file(), json.dumps(last).encode())


def last_saved() -> tuple[Path, str] | None:
    """Return the conversation that was saved last, and the path of its model; None if none was, or its file is gone."""
    try:
        last = json.loads(read_regular(_last_file(), _LARGEST_BYTES))
        path, model = Path(last["conversation"]), str(last["model"])
    except (ThriftbitError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return (path, model) if path.is_file() else None


def _last_file() -> Path:
    return data_folder() / "last-conversation.json"


def load(conversation: Conversation, path: Path) -> None:
    """Goes on with what `path` has; ThriftbitError if that is no conversation, and then nothing has changed."""
    path = path.expanduser()
    try:
        document = json.loads(read_regular(path, _LARGEST_BYTES))
    except (ValueError, RecursionError):
        raise ThriftbitError(f"{path}: is no conversation: it is not JSON; /save writes one") from None
    if not isinstance(document, dict) or document.get("kind") != _KIND:
        raise ThriftbitError(f"{path}: is no conversation that /save wrote")
    if document.get("version") != _VERSION:
        raise ThriftbitError(f"{path}: was written by another version of Thriftbit ({shown(document.get('version'))})")
    system, settings, messages = (document.get(name) for name in ("system", "settings", "messages"))
    if not isinstance(system, str) or not isinstance(settings, dict) or not isinstance(messages, list):
        raise ThriftbitError(f"{path}: is damaged: system, settings or messages are missing")
    if len(messages) % 2 or not all(_is_message(each, _TURN[i % 2]) for i, each in enumerate(messages)):
        raise ThriftbitError(f"{path}: is damaged: questions and answers do not alternate")
    known = {name: checked(SETTINGS[name], value) for name, value in settings.items() if name in SETTINGS}
    said = [{"role": each["role"], "content": each["content"]} for each in messages]
    conversation.restore(said, system, known)


def _is_message(message: object, role: str) -> bool:
    return isinstance(message, dict) and message.get("role") == role and isinstance(message.get("content"), str)
