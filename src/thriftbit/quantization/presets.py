"""Presets: from a name such as Q4_K_M to a format for every tensor, as `llama-quantize` chooses it.

People know llama.cpp's names, and a file called Q4_K_M should be what others call Q4_K_M. So the choice follows
llama.cpp's, tensor by tensor. llama.cpp has an if-chain with counters that run over the tensors. Here the choice is
ordered rules in `presets.toml`, and this file only knows what the words of a rule mean. To add a preset, add a table
there.

The one subtle word is "layer". llama.cpp counts the attention-value matrices as it meets them, among all such matrices,
and the down projections among `block_count` layers. In a mixture of experts, where a layer may hold several, it takes
the layer number from the name instead. Where every layer is alike, these agree. `_positions` follows llama.cpp exactly.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from thriftbit.errors import ThriftbitError
from thriftbit.formats import format_named
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import Tensor

KEPT_FORMAT = "F32"

# Which of n layers are meant, layer 0 first.
_LAYERS: Mapping[str, Callable[[int, int], bool]] = {
    "first-2": lambda layer, n: layer < 2,
    "first-4": lambda layer, n: layer < 4,
    "first-eighth": lambda layer, n: layer < n // 8,
    "first-sixteenth": lambda layer, n: layer < n // 16,
    "more-bits": lambda layer, n: layer < n // 8 or layer >= 7 * n // 8 or (layer - n // 8) % 3 == 2,
}


@dataclass(frozen=True)
class _Facts:
    """What rules may ask about a model."""

    architecture: str
    layers: int
    experts: int
    shared_by: int
    tied: bool
    importance: bool

    @classmethod
    def of(cls, model: Model, importance: bool) -> _Facts:
        def number(key: str, default: int) -> int:
            values = np.ravel(model.metadata.get(f"{model.architecture}.{key}", default))
            if values.size == 0 or not np.issubdtype(values.dtype, np.integer):
                raise ThriftbitError(f"{model.source}: {model.architecture}.{key} should be a whole number")
            return int(values[0])  # where each layer has its own, the first counts

        heads = number("attention.head_count", 1)
        value_heads = number("attention.head_count_kv", heads)
        return cls(
            architecture=model.architecture,
            layers=number("block_count", 0),
            experts=number("expert_count", 0),
            shared_by=heads // value_heads if value_heads else 0,
            tied=all(_kind(tensor.name) != "output" for tensor in model.tensors),
            importance=importance,
        )


@dataclass(frozen=True)
class _Rule:
    """One line of presets.toml: `use` this format where every given condition holds."""

    use: str
    tensor: str | None = None
    stacked: bool | None = None
    layers: str | None = None
    architecture: str | None = None
    experts: int | None = None
    shared_by: int | None = None
    size: str | None = None
    importance: bool | None = None

    def matches(self, kind: str, stacked: bool, position: tuple[int, int], facts: _Facts) -> bool:
        return (
            self.tensor in (None, kind)
            and self.stacked in (None, stacked)
            and self.architecture in (None, facts.architecture)
            and self.experts in (None, facts.experts)
            and self.importance in (None, facts.importance)
            and (self.shared_by is None or facts.shared_by >= self.shared_by)
            and (self.size is None or any(_is_of_size(facts, **size) for size in _TABLE["sizes"][self.size]))
            and (self.layers is None or _LAYERS[self.layers](*position))
        )


@dataclass(frozen=True)
class Preset:
    """name: llama.cpp's. most: the format of tensors that no rule names. rules: the first that matches decides.
    summary: for people."""

    name: str
    most: str
    rules: tuple[_Rule, ...]
    summary: str


def _read_presets(table: Mapping[str, Any]) -> dict[str, Preset]:
    def rules(entry: Mapping[str, Any]) -> tuple[_Rule, ...]:
        return tuple(_Rule(**rule) for rule in entry.get("rules", ()))

    shared = rules(table["every_mixture"])
    presets = {}
    for name, entry in table["presets"].items():
        own = rules(entry)
        if "output" in entry:
            own = (*shared, *own, _Rule(entry["output"], "output"))
        presets[name] = Preset(name, entry["most"], own, entry["summary"])
    return presets


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, patterns)))


_TABLE: Mapping[str, Any] = tomllib.loads(Path(__file__).with_name("presets.toml").read_text(encoding="utf-8"))
_NEVER_QUANTIZED = _any_of(_TABLE["never_quantized"])
_KEPT_AS_STORED = _any_of(_TABLE["kept_as_stored"])
_KINDS = {kind: _any_of(patterns) for kind, patterns in _TABLE["kinds"].items()}
PRESETS: Mapping[str, Preset] = _read_presets(_TABLE)


def is_quantizable(tensor: Tensor) -> bool:
    """Whether any preset stores this tensor in less than 32 bits. The others are small and stay in F32."""
    kept = _NEVER_QUANTIZED.match(tensor.name) or _KEPT_AS_STORED.match(tensor.name)
    return tensor.rows > 1 and tensor.name.endswith("weight") and not kept


def kept_format(tensor: Tensor) -> str:
    """-> the format of a tensor that no preset quantizes"""
    as_stored = tensor.rows > 1 and _KEPT_AS_STORED.match(tensor.name) and not _NEVER_QUANTIZED.match(tensor.name)
    return tensor.source_dtype if as_stored and tensor.source_dtype in ("F16", "BF16") else KEPT_FORMAT


@cache
def fitting_format(name: str, width: int) -> str:
    """Return the format of this name, or llama.cpp's fallback for rows that its blocks do not divide."""
    if width % format_named(name).block_size == 0:
        return name
    fallback = format_named(name).fallback
    return fallback if fallback is not None and width % format_named(fallback).block_size == 0 else "F16"


def choose_formats(model: Model, preset: Preset, importance: bool = False) -> dict[str, str]:
    """Return the format name of every tensor, in the model's order. importance: whether importance data is used."""
    facts = _Facts.of(model, importance)
    quantizable = [tensor for tensor in model.tensors if is_quantizable(tensor)]
    kinds = {tensor.name: _kind(tensor.name) for tensor in quantizable}
    if facts.tied:
        kinds |= {name: "output" for name, kind in kinds.items() if kind == "token-embedding"}
    positions = _positions(kinds, facts)

    chosen = {tensor.name: kept_format(tensor) for tensor in model.tensors}
    for tensor in quantizable:
        kind, position = kinds[tensor.name], positions[tensor.name]
        stacked = len(tensor.shape) > 2
        format_name = next((r.use for r in preset.rules if r.matches(kind, stacked, position, facts)), preset.most)
        chosen[tensor.name] = fitting_format(format_name, tensor.width)
    return chosen


def _positions(kinds: Mapping[str, str], facts: _Facts) -> dict[str, tuple[int, int]]:
    """Return (layer, number of layers) for every tensor, as rules understand layers."""
    positions = {}
    met: dict[str, int] = {}
    value_matrices = sum(kind == "attention-value" for kind in kinds.values())
    for name in sorted(kinds, key=lambda name: (_block(name), name)):
        kind = kinds[name]
        layer = met.get(kind, 0)
        met[kind] = layer + 1
        if kind == "attention-value":
            positions[name] = (layer, value_matrices)
        else:
            positions[name] = (_block(name) if facts.experts > 1 else layer, facts.layers)
    return positions


def _block(name: str) -> int:
    match = re.match(r"blk\.(\d+)", name)
    return int(match[1]) if match else -1


@cache
def _kind(name: str) -> str:
    return next((kind for kind, pattern in _KINDS.items() if pattern.match(name)), "")


def _is_of_size(facts: _Facts, architecture: str, layers: int, shared: bool = False) -> bool:
    return facts.architecture == architecture and facts.layers == layers and (facts.shared_by != 1 or not shared)
