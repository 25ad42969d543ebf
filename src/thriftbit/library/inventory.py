"""Every model on this disk, by what is in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from thriftbit.containers.gguf_reader import read_gguf
from thriftbit.containers.header_stream import KnownTexts
from thriftbit.errors import ThriftbitError
from thriftbit.library.candidate import Candidate
from thriftbit.library.content import MODEL, Content, gguf_content, judge
from thriftbit.library.duplicates import find_duplicates
from thriftbit.library.header_cache import HeaderCache
from thriftbit.library.places import candidates
from thriftbit.library.quantized_checkpoint import checkpoint_content
from thriftbit.sources.gguf_source import PART_NAME, read_parts


@dataclass(frozen=True)
class LocalModel:
    """label: what it really is, None where it could not be read, and problem then says why. warning: where its name
    says something else. copies: other files with the same bytes. aliases: other names in the same program."""

    name: str
    place: str
    path: Path
    size_bytes: int
    content: Content | None
    label: str | None
    warning: str | None = None
    problem: str | None = None
    aliases: tuple[str, ...] = ()
    copies: tuple[Path, ...] = ()

    @property
    def is_model(self) -> bool:
        return self.content is None or self.content.kind == MODEL

    @property
    def searched(self) -> str:
        """-> all that words are looked for in"""
        content = self.content
        facts = (content.name, content.architecture) if content else ()
        return " ".join(filter(None, (self.name, *self.aliases, self.label, *facts)))


@dataclass(frozen=True)
class Inventory:
    """models: in no order. warnings: sentences on what could not be looked at."""

    models: tuple[LocalModel, ...]
    warnings: tuple[str, ...]


def take_inventory(
    words: Sequence[str] = (),
    *,
    current: Path | None = None,
    cache: HeaderCache | None = None,
) -> Inventory:
    """-> the models on this disk that all words are in the names or contents of, from their headers alone

    current: the folder that is searched besides those of programs.
    """
    cache = cache or HeaderCache()
    warnings: list[str] = []
    found = list(candidates(current or Path.cwd(), warnings.append))
    known = KnownTexts()
    models = {candidate: _look_into(candidate, cache, known) for candidate in found}
    chosen = [candidate for candidate in found if matches(words, models[candidate].searched)]
    for same in find_duplicates(chosen, cache):
        first, *others = same
        for other in others:
            del models[other]
            chosen.remove(other)
        models[first] = replace(models[first], copies=tuple(other.path for other in others))
    cache.save()
    return Inventory(tuple(models[candidate] for candidate in chosen), tuple(warnings))


def matches(words: Sequence[str], text: str) -> bool:
    """-> whether every word is in the text, without regard to case and to what separates words ("qwen3 8b" is in
    "Qwen3-8B"); a number must be whole, so that 8b is not found in 18b"""
    plain = _plain(text)
    return all(_is_in(_plain(word), plain) for word in words)


def _plain(text: str) -> str:
    return re.sub(r"[\s_\-/:]+", "-", text.lower()).strip("-")


def _is_in(word: str, text: str) -> bool:
    if not word:
        return True
    before = r"(?<![a-z0-9.])" if word[0].isdecimal() else ""
    after = r"(?![a-z0-9])" if word[0].isdecimal() else r"(?!\d)" if word[-1].isdecimal() else ""
    return re.search(before + re.escape(word) + after, text) is not None


def _look_into(candidate: Candidate, cache: HeaderCache, known: KnownTexts) -> LocalModel:
    size_bytes = sum(map(_size, candidate.files))
    if candidate.problem:
        return _unreadable(candidate, size_bytes, candidate.problem)
    try:
        content = cache.content(candidate.files, lambda: _read(candidate, known))
    except ThriftbitError as error:
        return _unreadable(candidate, size_bytes, str(error))
    except OSError as error:
        return _unreadable(candidate, size_bytes, f"cannot be read: {error.strerror}")
    verdict = judge(content, candidate.name)
    return LocalModel(
        name=candidate.name,
        place=candidate.place,
        path=candidate.path,
        size_bytes=size_bytes,
        content=content,
        label=verdict.label,
        warning=verdict.warning,
        aliases=candidate.aliases,
    )


def _read(candidate: Candidate, known: KnownTexts) -> Content:
    if candidate.folder is not None:
        return checkpoint_content(candidate.folder)
    file = candidate.files[0]
    if PART_NAME.fullmatch(file.name):
        return gguf_content(read_parts(file, any_byte_order=True))
    return gguf_content([read_gguf(file, any_byte_order=True, known=known)])


def _unreadable(candidate: Candidate, size_bytes: int, problem: str) -> LocalModel:
    return LocalModel(
        name=candidate.name,
        place=candidate.place,
        path=candidate.path,
        size_bytes=size_bytes,
        content=None,
        label=None,
        problem=problem,
        aliases=candidate.aliases,
    )


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
