"""Which files on this disk are the same, byte for byte.

Hashing a disk of models would take half an hour, so what is cheap comes first: only files of the same size can be the
same, then only those that agree in seventeen samples. Of the few that are left the SHA-256 decides. Ollama and the
Hub's cache name their content by it; of other files it is computed once and kept. Left out: folders of several files.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from thriftbit.errors import ThriftbitError
from thriftbit.library.candidate import Candidate
from thriftbit.library.header_cache import HeaderCache
from thriftbit.sizes import describe_bytes
from thriftbit.sources.json_object import open_regular

_logger = logging.getLogger(__name__)

_SAMPLES, _SAMPLE_BYTES = 16, 16 << 10
_WORTH_TELLING_BYTES = 2_000_000_000  # takes a second or two


def find_duplicates(found: Sequence[Candidate], cache: HeaderCache) -> list[list[Candidate]]:
    """-> groups of candidates with the same bytes. It is logged before something long is hashed."""
    single = [candidate for candidate in found if candidate.folder is None and len(candidate.files) == 1]
    tied = [
        group
        for same_size in _alike(single, lambda candidate: _size(candidate.files[0]))
        for group in _alike(same_size, lambda candidate: _sampled(candidate.files[0], cache))
    ]
    unknown_bytes = sum(_size(c.files[0]) or 0 for group in tied for c in group if c.sha256 is None)
    if unknown_bytes > _WORTH_TELLING_BYTES:
        _logger.info(f"Comparing files that look the same, {describe_bytes(unknown_bytes)}, once.")
    return [same for group in tied for same in _alike(group, lambda candidate: _sha256(candidate, cache))]


def _alike(candidates: Sequence[Candidate], key: Callable[[Candidate], str | int | None]) -> list[list[Candidate]]:
    """-> groups of two and more with the same key; what has none is in no group"""
    groups: dict[str | int, list[Candidate]] = {}
    for candidate in candidates:
        value = key(candidate)
        if value is not None:
            groups.setdefault(value, []).append(candidate)
    return [group for group in groups.values() if len(group) > 1]


def _size(file: Path) -> int | None:
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
    except (OSError, ThriftbitError):  # told where its header is read
        return None
