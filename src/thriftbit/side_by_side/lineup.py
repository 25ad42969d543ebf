"""Which files are compared, and which of them is the original: the one with the most bits per weight.

That is what people mean by it, and it does not depend on the order in which they typed. Files are known by what is in
them, as in measurements: the fingerprint of the weights, and the size.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thriftbit.errors import UsageError
from thriftbit.library.inventory import check_can_chat
from thriftbit.measurement.measurement import Subject
from thriftbit.measurement.subject import describe_subject
from thriftbit.sources.model import Model
from thriftbit.sources.open_model import open_as_it_is

_logger = logging.getLogger(__name__)

MOST = 6  # columns that can still be read


@dataclass(frozen=True)
class Contender:
    """label: its level, "Q4_K_M", or its name where two have one level."""

    path: Path
    subject: Subject
    label: str

    @property
    def content(self) -> str:
        return f"{self.subject.fingerprint}-{self.subject.size_bytes}"


def lineup(paths: Sequence[Path]) -> tuple[Contender, ...]:
    """Return the original first, then the others as they were given. Raises ThriftbitError for files that are damaged,
    UsageError for what cannot be compared."""
    if not 2 <= len(paths) <= MOST:
        raise UsageError(f"compare takes two files or more, up to {MOST}, and not {len(paths)}")
    for path in paths:
        check_can_chat(path, "`thriftbit compare` is for models that write text")
    models = [open_as_it_is(path, offline=True) for path in paths]
    subjects = [describe_subject(model) for model in models]
    levels = Counter(subject.level for subject in subjects)
    files = [
        Contender(path, subject, subject.level if levels[subject.level] == 1 else subject.name)
        for path, subject in zip(paths, subjects, strict=True)
    ]
    contents: dict[str, Path] = {}
    for file in files:
        if file.content in contents:
            raise UsageError(f"{file.path} and {contents[file.content]} hold the same weights: nothing to compare")
        contents[file.content] = file.path
    original = max(files, key=lambda file: file.subject.bits_per_weight)
    first = models[files.index(original)]
    for file, model in zip(files, models, strict=True):
        if _shape(model) != _shape(first):
            _logger.info(
                f"Note: {file.path.name} is another model than {original.path.name}, not another precision of it."
            )
    return (original, *(file for file in files if file is not original))


def _shape(model: Model) -> tuple[str, dict[str, tuple[int, ...]]]:
    """Return what precisions of one model have in common. The output matrix may be the embedding, and left out."""
    return model.architecture, {
        tensor.name: tuple(tensor.shape) for tensor in model.tensors if tensor.name != "output.weight"
    }
