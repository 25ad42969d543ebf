"""What a model writes, made harmless.

A model can be talked into writing anything, and a terminal obeys what it is sent: escape sequences change its title,
its clipboard and what stands on it; marks of direction make text read otherwise than it is. So every character that is
no letter, mark, number, sign or space is shown as its escape. Each on its own, so that no sequence can hide between two
pieces of an answer. What joins letters (in Persian, in Hindi, in emoji) and soft hyphens are kept: they move nothing.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Any

_KEPT = frozenset("\n\u200c\u200d\u00ad")
_TAB = "    "


def harmless(text: str) -> str:
    """-> the text for a terminal: line breaks stay, tabs become spaces, whatever could drive it becomes an escape"""
    return "".join(_harmless(character) for character in text)


def _harmless(character: str) -> str:
    if character.isprintable() or character in _KEPT or unicodedata.category(character) == "Zs":
        return character
    if character == "\t":
        return _TAB
    return "" if character == "\r" else ascii(character)[1:-1]


def harmless_json(document: Any) -> str:
    """-> JSON for a program, which a terminal can be shown as well: the same escapes, as JSON writes them"""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    # outside its strings JSON is ASCII, and there ASCII's controls are escaped already
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
