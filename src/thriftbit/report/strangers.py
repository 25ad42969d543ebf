"""Text that strangers wrote, made harmless to look at: names of files, questions, answers, whatever stands in a row.

Control characters drive terminals, direction overrides show "exe.gguf" for "fgug.exe", and half a surrogate pair cannot
be written to a file at all. They are shown as escapes instead. What belongs to ordinary writing stays: every printable
character, all kinds of space, and the joiners that Persian and Devanagari need. Markup is not our business here: the
page's template escapes it, and the terminal gets plain text objects.
"""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"


def visible(text: str, keep: str = "") -> str:
    """-> the text with what cannot be seen as escapes, such as "\\x1b"; keep: characters to leave, "\\n" for example"""
    return "".join(
        c if c.isprintable() or c in keep or c in _JOINERS or unicodedata.category(c) == "Zs" else ascii(c)[1:-1]
        for c in text
    )


def shortened(text: str, limit: int) -> str:
    """-> the text in one line of at most `limit` characters; the middle goes, as names differ at their ends"""
    text = visible(" ".join(text.split()))
    if len(text) <= limit:
        return text
    head = (limit - 1) * 3 // 5
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"
