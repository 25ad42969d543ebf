"""The table of terms, `terms.toml`: what every word of the output means."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Term:
    """meaning: one to three sentences. topic: the heading it stands under. also: other spellings."""

    name: str
    meaning: str
    topic: str
    also: tuple[str, ...] = ()


def _read() -> dict[str, Term]:
    table = tomllib.loads(Path(__file__).with_name("terms.toml").read_text(encoding="utf-8"))
    return {
        name: Term(name, entry["means"], topic, tuple(entry.get("also", ())))
        for topic, entries in table.items()
        for name, entry in entries.items()
    }


TERMS: Mapping[str, Term] = _read()


def term_named(name: str) -> Term | None:
    """Return the term; None if there is none of this name. name: in any case, with blanks, hyphens or underscores,
    perhaps in the plural."""
    wanted = _plain(name)
    return _BY_SPELLING.get(wanted) or _BY_SPELLING.get(wanted.removesuffix("s"))


def spellings() -> Mapping[str, str]:
    """Return the name of the term for each spelling, in lower case."""
    return {spelling.lower(): term.name for term in TERMS.values() for spelling in (term.name, *term.also)}


def _plain(text: str) -> str:
    return "".join(character for character in text.strip().lower() if character not in " -_")


_BY_SPELLING = {_plain(spelling): term for term in TERMS.values() for spelling in (term.name, *term.also)}
