"""Every model on this disk, by its headers.

Hashing a disk of models takes half an hour, so identical files are found in three steps. Only files of the same size
are compared, and of these only files that agree in seventeen samples. SHA-256 decides about the few that remain. Ollama
and the Hub's cache use it as the name of their content; for other files it is computed once and kept. Left out: copies
of folders with several files."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from thriftbit.containers.gguf_reader import read_gguf
from thriftbit.containers.header_stream import KnownTexts
from thriftbit.containers.regular_files import open_regular
from thriftbit.errors import ThriftbitError
from thriftbit.library.candidate import Candidate
from thriftbit.library.content import Content, gguf_content, judge
from thriftbit.library.disk_search import candidates
from thriftbit.library.header_cache import HeaderCache
from thriftbit.library.kinds import (
    ADAPTER,
    CONTROL,
    IMPORTANCE,
    KINDS,
    OTHER,
    TEXT,
    VOCABULARY,
    cannot,
    folder_kind,
)
from thriftbit.library.quantized_checkpoint import checkpoint_content
from thriftbit.sizes import describe_bytes
from thriftbit.sources.checkpoint import CONFIG
from thriftbit.sources.gguf_source import PART_NAME, read_parts
from thriftbit.sources.json_object import read_json_object

_logger = logging.getLogger(__name__)

_SAMPLES, _SAMPLE_BYTES = 16, 16 << 10
_WORTH_TELLING_BYTES = 2_000_000_000  # hashing them takes a second or two


@dataclass(frozen=True)
class LocalModel:
    """label: the true precision; None if the model could not be read. problem: why it could not be read. warning: a
    sentence if its name says something else. copies: other files with the same bytes. aliases: other names in the same
    program."""

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
    def kind(self) -> str:
        """The kind, one of `kinds.KINDS`; OTHER if the model could not be read."""
        return self.content.kind if self.content else OTHER

    @property
    def is_whole(self) -> bool:
        """Whether it is a model by itself, not a part of another one; True if it could not be read."""
        return self.content is None or KINDS[self.kind].is_whole

    @property
    def can_chat(self) -> bool:
        return self.kind == TEXT

    @property
    def searched(self) -> str:
        """The text in which words are searched."""
        content = self.content
        facts = (content.name, content.architecture, content.kind) if content else ()
        return " ".join(filter(None, (self.name, *self.aliases, self.label, *facts)))


@dataclass(frozen=True)
class Inventory:
    """models: in no order. warnings: sentences on what could not be searched."""

    models: tuple[LocalModel, ...]
    warnings: tuple[str, ...]


def take_inventory(
    words: Sequence[str] = (),
    *,
    current: Path | None = None,
    cache: HeaderCache | None = None,
) -> Inventory:
    """Return the models on this disk whose names or contents contain all words. Only headers are read.

    current: the folder that is searched beside those of programs; the current one if None. cache: of headers."""
    cache = cache or HeaderCache()
    warnings: list[str] = []
    found = list(candidates(current or Path.cwd(), warnings.append))
    known = KnownTexts()
    models = {candidate: _look_into(candidate, cache, known) for candidate in found}
    chosen = [candidate for candidate in found if matches(words, models[candidate].searched)]
    for same in _find_duplicates(chosen, cache):
        first, *others = same
        for other in others:
            del models[other]
            chosen.remove(other)
        models[first] = replace(models[first], copies=tuple(other.path for other in others))
    cache.save()
    return Inventory(tuple(models[candidate] for candidate in chosen), tuple(warnings))


def kind_of(path: Path) -> str:
    """Return the kind of a GGUF file or a folder of safetensors, one of `kinds.KINDS`. A folder that cannot be judged
    is TEXT: opening it then tells what is wrong. Raises ThriftbitError for a GGUF that cannot be read."""
    if path.is_dir():
        try:
            return folder_kind(read_json_object(path / CONFIG), {entry.name for entry in path.iterdir()})
        except (ThriftbitError, OSError):
            return TEXT
    return gguf_content(read_parts(path)).kind


def check_can_chat(path: Path, why: str = "it cannot chat") -> None:
    """Raise ThriftbitError, which says what works instead, for a file or folder that is no language model. why: the
    reason in the error, "it cannot chat"."""
    kind = kind_of(path)
    if kind != TEXT:
        raise cannot(kind, path, why)


def check_quantizable(source: str) -> None:
    """Raise ThriftbitError, which says what works instead, for a file of a kind that is never quantized by itself."""
    path = Path(source)
    if path.is_file() and (kind := kind_of(path)) in (ADAPTER, CONTROL, IMPORTANCE, VOCABULARY):
        raise cannot(kind, path, "it is not quantized by itself")


def matches(words: Sequence[str], text: str) -> bool:
    """Return whether every word is in the text. Case and separators do not matter: "qwen3 8b" is in "Qwen3-8B". A
    number has to be complete: 8b is not in 18b."""
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


def _find_duplicates(found: Sequence[Candidate], cache: HeaderCache) -> list[list[Candidate]]:
    """Return groups of candidates with the same bytes."""
    single = [candidate for candidate in found if candidate.folder is None and len(candidate.files) == 1]
    tied = [
        group
        for same_size in _alike(single, lambda candidate: _size_or_none(candidate.files[0]))
        for group in _alike(same_size, lambda candidate: _sampled(candidate.files[0], cache))
    ]
    unknown_bytes = sum(_size_or_none(c.files[0]) or 0 for group in tied for c in group if c.sha256 is None)
    if unknown_bytes > _WORTH_TELLING_BYTES:
        _logger.info(f"Comparing files that seem to be copies, {describe_bytes(unknown_bytes)}, once.")
    return [same for group in tied for same in _alike(group, lambda candidate: _sha256(candidate, cache))]


def _alike(candidates: Sequence[Candidate], key: Callable[[Candidate], str | int | None]) -> list[list[Candidate]]:
    """Return groups of two or more candidates with the same key. Candidates without a key are in no group."""
    groups: dict[str | int, list[Candidate]] = {}
    for candidate in candidates:
        value = key(candidate)
        if value is not None:
            groups.setdefault(value, []).append(candidate)
    return [group for group in groups.values() if len(group) > 1]


def _size_or_none(file: Path) -> int | None:
    try:
        return file.stat().st_size or None
    except OSError:
        return None


def _sampled(file: Path, cache: HeaderCache) -> str | None:
    def compute() -> str:
        digest = hashlib.sha256()
        with open_regular(file) as stream:
            size = stream.seek(0, 2)
            for sample in range(_SAMPLES + 1):
                stream.seek(max(0, (size - _SAMPLE_BYTES) * sample // _SAMPLES))
                digest.update(stream.read(_SAMPLE_BYTES))
        return digest.hexdigest()

    return _hash(file, "samples", compute, cache)


def _sha256(candidate: Candidate, cache: HeaderCache) -> str | None:
    if candidate.sha256:
        return candidate.sha256

    def compute() -> str:
        with open_regular(candidate.files[0]) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    return _hash(candidate.files[0], "sha256", compute, cache)


def _hash(file: Path, kind: str, compute: Callable[[], str], cache: HeaderCache) -> str | None:
    try:
        return cache.hash(file, kind, compute)
    except (OSError, ThriftbitError):  # reading its header tells the reason
        return None
