"""Text that strangers wrote, made harmless to look at: names, metadata, questions, and what models write.

A terminal obeys what it is sent: escape sequences change its title, its clipboard and what stands on it. Marks of
direction make text read otherwise than it is ("exe.gguf" for "fgug.exe"). Half a surrogate pair cannot be written to a
file at all. All of these are shown as escapes, each character on its own, so that no sequence can hide between two
pieces of an answer. What belongs to ordinary writing stays: printable characters, all kinds of space, the joiners that
Persian, Hindi and emoji need, and soft hyphens. They move nothing.

Markup is left to those who print it: the page's template escapes it, and the terminal gets plain text.
"""

from __future__ import annotations

import json
import shlex
import unicodedata
from pathlib import Path
from typing import Any

_INVISIBLE_IN_WRITING = "\u200c\u200d\u00ad"


def harmless(text: str, keep: str = "\n") -> str:
    """Return the text with everything that could drive a terminal as
    escapes, such as "\\x1b"; keep: characters to leave."""
    return "".join(c if _is_harmless(c) or c in keep else ascii(c)[1:-1] for c in text)


def harmless_json(document: Any) -> str:
    """Return JSON for a program that a terminal can be shown as well: the same escapes, in keys and values, as JSON has
    them. ValueError for numbers that are not finite."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    # outside its strings JSON is ASCII, and in its strings ASCII's controls are escaped already
    return "".join(c if _is_harmless(c) or c == "\n" else json.dumps(c)[1:-1] for c in text)


def shortened(text: str, limit: int) -> str:
    """Return the text in one line of at most `limit` characters; the middle goes, as names differ at their ends."""
    text = harmless(" ".join(text.split()))
    if len(text) <= limit:
        return text
    head = (limit - 1) * 3 // 5
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def quoted(word: str | Path) -> str:
    """Return a word of a command that is printed to be pasted, so that a shell takes it as one word and runs nothing in
    it.

    A name that begins with "-" gets "./" in front, so that the command does not take it for an option."""
    text = str(word)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def _is_harmless(character: str) -> bool:
    return character.isprintable() or character in _INVISIBLE_IN_WRITING or unicodedata.category(character) == "Zs"
