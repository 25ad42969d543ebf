"""The results of `thriftbit inspect`, as data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from thriftbit.containers.gguf_values import MetadataValue
from thriftbit.inspection.description import (
    InspectedTensor,
    ModelDescription,
    as_utf8,
    describe_model,
    describe_remote_model,
)
from thriftbit.inspection.oddities import oddities
from thriftbit.library.locate import locate
from thriftbit.notebook import html_table
from thriftbit.sizes import describe_bytes, describe_count

SHORT_ARRAY = 8  # a longer one is summarised by its length and this many of its first values

# What JSON holds
Plain: TypeAlias = bool | int | float | str | list["Plain"] | dict[str, "Plain"] | None


@dataclass(frozen=True)
class TypeTotal:
    """All tensors of one type together."""

    type: str
    tensors: int
    parameters: int
    size_bytes: int


@dataclass(frozen=True)
class TokenizerFacts:
    """model: llama.cpp's name of the algorithm. pre: its name of the pre-tokenizer. Both are "" if the file names
    none."""

    model: str
    pre: str
    vocabulary_size: int
    chat_template: bool


@dataclass(frozen=True)
class Inspection:
    """kind: "GGUF" or "folder". files: names of files with weights. file_type: what the file says it is, for example
    "Q4_K_M". weights_bytes: of the tensors alone. bits_per_weight: of the tensors alone, without header, tokenizer and
    padding. types: most bytes first. oddities: plain sentences. metadata: under GGUF keys, long arrays summarised. None
    stands for everything that is not stated or not known."""

    path: str
    kind: str
    files: tuple[str, ...]
    name: str | None
    architecture: str | None
    file_type: str | None
    context_length: int | None
    parameters: int
    file_size_bytes: int
    weights_bytes: int
    bits_per_weight: float | None
    types: tuple[TypeTotal, ...]
    tokenizer: TokenizerFacts | None
    oddities: tuple[str, ...]
    metadata: Mapping[str, Plain]
    tensors: tuple[InspectedTensor, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the same for JSON, with the parameters and bits per weight of each tensor."""
        tensors = [
            asdict(tensor) | {"parameters": tensor.parameters, "bits_per_weight": tensor.bits_per_weight}
            for tensor in self.tensors
        ]
        return asdict(self) | {"tensors": tensors}

    def __repr__(self) -> str:
        bits = f", {self.bits_per_weight:.2f} bits per weight" if self.bits_per_weight else ""
        return f"Inspection({self.path!r}, {describe_count(self.parameters)} parameters{bits})"

    def _repr_html_(self) -> str:
        rows = [
            (total.type, total.tensors, describe_count(total.parameters), describe_bytes(total.size_bytes))
            for total in self.types
        ]
        return html_table(repr(self), ("type", "tensors", "weights", "size"), rows)


def inspect(path: str | Path) -> Inspection:
    """Return what is in a model's files.

    path: whatever `locate` understands: a GGUF file (any part of a split one), a folder with config.json and
    safetensors, or a name. If a GGUF is only on the Hub, its header is read and nothing is downloaded. Raises
    ThriftbitError for a model that is missing, damaged, or neither a GGUF nor a folder."""
    located = locate(path, to_run=True)
    path = Path(located.source)
    description = describe_remote_model(located) if located.is_remote else describe_model(path)
    parameters = sum(tensor.parameters for tensor in description.tensors)
    weights_bytes = sum(tensor.size_bytes for tensor in description.tensors)
    return Inspection(
        path=as_utf8(str(path)),
        kind="GGUF" if description.parts else "folder",
        files=tuple(as_utf8(file.name) for file in description.files),
        name=description.text("general.name"),
        architecture=description.architecture,
        file_type=description.file_type,
        context_length=description.number(f"{description.architecture}.context_length"),
        parameters=parameters,
        file_size_bytes=located.size_bytes or sum(file.stat().st_size for file in description.files),
        weights_bytes=weights_bytes,
        bits_per_weight=8 * weights_bytes / parameters if parameters else None,
        types=_type_totals(description.tensors),
        tokenizer=_tokenizer(description),
        oddities=oddities(description),
        metadata={key: _plain(value) for key, value in description.metadata.items()},
        tensors=description.tensors,
    )


def _type_totals(tensors: Iterable[InspectedTensor]) -> tuple[TypeTotal, ...]:
    groups: dict[str, list[InspectedTensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.type, []).append(tensor)
    totals = (
        TypeTotal(type, len(group), sum(t.parameters for t in group), sum(t.size_bytes for t in group))
        for type, group in groups.items()
    )
    return tuple(sorted(totals, key=lambda total: -total.size_bytes))


def _tokenizer(description: ModelDescription) -> TokenizerFacts | None:
    model = description.text("tokenizer.ggml.model")
    if model is None:
        return None
    return TokenizerFacts(
        model=model,
        pre=description.text("tokenizer.ggml.pre") or "",
        vocabulary_size=description.vocabulary_size,
        chat_template=bool(description.text("tokenizer.chat_template")),
    )


def _plain(value: MetadataValue) -> Plain:
    """Return the value as JSON has it: numbers that are not finite as text."""
    if isinstance(value, str):
        return as_utf8(value)
    if isinstance(value, list | np.ndarray):
        first = [_plain(item) for item in value[:SHORT_ARRAY]]
        if len(value) <= SHORT_ARRAY:
            return first
        return {
            "array_of": str(value.dtype) if isinstance(value, np.ndarray) else "text",
            "length": len(value),
            "first": first,
        }
    number = value.item() if isinstance(value, np.generic) else value
    return str(number) if isinstance(number, float) and not math.isfinite(number) else number
