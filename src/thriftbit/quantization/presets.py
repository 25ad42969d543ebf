"""Presets: from a name such as Q4_K_M to a format for every tensor, as `llama-quantize` chooses it.

People know llama.cpp's names, and a file called Q4_K_M should be what others call Q4_K_M. So the choice follows
llama.cpp's, tensor by tensor. llama.cpp has an if-chain with counters that run over the tensors. Here the choice is
ordered rules in `presets.toml`, and this file only knows what the words of a rule mean. To add a preset, add a table
there.

The one subtle word is "layer". llama.cpp counts the attention-value matrices as it meets them, among all such matrices,
and the down projections among `block_count` layers. In a mixture of experts, where a layer may hold several, it takes
the layer number from the name instead; in the presets of two bits and less it counts there too ("met"). Where every
layer is alike, these agree. `_positions` follows llama.cpp exactly.
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import translate
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from thriftbit.errors import ThriftbitError
from thriftbit.formats import FORMATS, format_named
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import Tensor

KEPT_FORMAT = "F32"


@dataclass(frozen=True)
class _Position:
    """layer: of `of` layers, from 0. met: how many tensors of the kind come before."""

    layer: int
    of: int
    met: int


_LAYERS: Mapping[str, Callable[[_Position], bool]] = {
    "first-2": lambda at: at.layer < 2,
    "first-4": lambda at: at.layer < 4,
    "first-eighth": lambda at: at.layer < at.of // 8,
    "first-eighth-met": lambda at: at.met < at.of // 8,
    "first-sixteenth": lambda at: at.layer < at.of // 16,
    "middle": lambda at: at.of // 8 <= at.layer < 7 * at.of // 8,
    "more-bits": lambda at: at.layer < at.of // 8 or at.layer >= 7 * at.of // 8 or (at.layer - at.of // 8) % 3 == 2,
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
    least_experts: int = 0
    shared_by: int | None = None
    size: str | None = None
    importance: bool | None = None

    def matches(self, kind: str, stacked: bool, position: _Position, facts: _Facts) -> bool:
        return (
            self.tensor in (None, kind)
            and self.stacked in (None, stacked)
            and self.architecture in (None, facts.architecture)
            and self.experts in (None, facts.experts)
            and self.least_experts <= facts.experts
            and self.importance in (None, facts.importance)
            and (self.shared_by is None or facts.shared_by >= self.shared_by)
            and (self.size is None or any(_is_of_size(facts, **size) for size in _TABLE["sizes"][self.size]))
            and (self.layers is None or _LAYERS[self.layers](position))
        )


@dataclass(frozen=True)
class Preset:
    """name: llama.cpp's. most: the format of tensors that no rule names. rules: the first that matches decides.
    summary: for people. needs_importance: formats that lose too much without importance data in this preset."""

    name: str
    most: str
    rules: tuple[_Rule, ...]
    summary: str
    needs_importance: frozenset[str] = frozenset()

    @property
    def formats(self) -> frozenset[str]:
        """Every format that a tensor may get, but for rows that its blocks do not divide."""
        return frozenset((self.most, *(rule.use for rule in self.rules)))

    @property
    def wants_importance(self) -> bool:
        """Whether a file of this preset is poor without importance data."""
        return bool(self.needs_importance)


def _read_presets(table: Mapping[str, Any]) -> dict[str, Preset]:
    def rules(given: Sequence[Mapping[str, Any]]) -> tuple[_Rule, ...]:
        return tuple(_Rule(**rule) for rule in given)

    presets = {}
    for name, entry in table["presets"].items():
        own = rules(entry["rules"]) if "rules" in entry else ()
        if "output" in entry:
            shared = (rules(given) for what, given in table["shared"].items() if what not in entry.get("without", ()))
            own = (*itertools.chain.from_iterable(shared), *own, _Rule(entry["output"], "output"))
        needs = frozenset((*table["needs_importance"], *filter(None, [entry.get("needs_importance")])))
        preset = Preset(name, entry["most"], own, entry["summary"])
        presets[name] = replace(preset, needs_importance=needs & preset.formats)
    return presets


def _is_written(format_name: str) -> bool:
    return format_name in FORMATS and FORMATS[format_name].can_encode


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, patterns)))


_TABLE: Mapping[str, Any] = tomllib.loads(Path(__file__).with_name("presets.toml").read_text(encoding="utf-8"))
_NEVER_QUANTIZED = _any_of(_TABLE["never_quantized"])
_KEPT_AS_STORED = _any_of(_TABLE["kept_as_stored"])
_KINDS = {kind: _any_of(patterns) for kind, patterns in _TABLE["kinds"].items()}
EVERY_PRESET: Mapping[str, Preset] = _read_presets(_TABLE)
PRESETS: Mapping[str, Preset] = {
    name: preset for name, preset in EVERY_PRESET.items() if all(map(_is_written, preset.formats))
}
"""Those of which every format can be written."""


def formats_that_need_importance(preset: str) -> frozenset[str]:
    """preset: a name; any other text stands for a plan without one. Returns formats that lose too much without it."""
    of_its_own = EVERY_PRESET[preset].needs_importance if preset in EVERY_PRESET else ()
    return frozenset((*_TABLE["needs_importance"], *of_its_own))


def is_quantizable(tensor: Tensor) -> bool:
    """Whether any preset stores this tensor in less than 32 bits. The others are small and stay in F32."""
    kept = _NEVER_QUANTIZED.match(tensor.name) or _KEPT_AS_STORED.match(tensor.name)
    return tensor.rows > 1 and tensor.name.endswith("weight") and not kept


def kept_format(tensor: Tensor) -> str:
    """Return the format of a tensor that no preset quantizes."""
    as_stored = tensor.rows > 1 and _KEPT_AS_STORED.match(tensor.name) and not _NEVER_QUANTIZED.match(tensor.name)
    return tensor.source_dtype if as_stored and tensor.source_dtype in ("F16", "BF16") else KEPT_FORMAT


@cache
def fitting_format(name: str, width: int, is_output: bool = False) -> str:
    """Return the format of this name, or llama.cpp's fallback for rows that its blocks do not divide: Q8_0 for the
    output matrix, the format's own for any other, and F16 where that does not fit either."""
    if width % format_named(name).block_size == 0:
        return name
    fallback = "Q8_0" if is_output else format_named(name).fallback
    return fallback if fallback is not None and width % format_named(fallback).block_size == 0 else "F16"


def choose_formats(model: Model, preset: Preset, importance: bool = False) -> dict[str, str]:
    """Return the format name of every tensor, in the model's order. importance: whether importance data is used."""
    wanted = _wanted_formats(model, preset, importance)
    return {
        tensor.name: fitting_format(name, tensor.width, is_output) if name else kept_format(tensor)
        for tensor, (name, is_output) in zip(model.tensors, wanted, strict=True)
    }


def fallbacks(model: Model, preset: Preset, importance: bool = False) -> dict[str, tuple[str, str]]:
    """Return tensor name -> the format that the preset names, and the one that the tensor gets, because its rows do not
    divide into the blocks of the first."""
    found = {}
    for tensor, (name, is_output) in zip(model.tensors, _wanted_formats(model, preset, importance), strict=True):
        if name and (fitting := fitting_format(name, tensor.width, is_output)) != name:
            found[tensor.name] = (name, fitting)
    return found


def _wanted_formats(model: Model, preset: Preset, importance: bool) -> list[tuple[str, bool]]:
    """Return for every tensor, in the model's order, the format that the preset names, "" for one that no preset
    quantizes; and whether it is the output matrix."""
    facts = _Facts.of(model, importance)
    quantizable = [tensor for tensor in model.tensors if is_quantizable(tensor)]
    kinds = {tensor.name: _kind(tensor.name) for tensor in quantizable}
    if facts.tied:
        kinds |= {name: "output" for name, kind in kinds.items() if kind == "token-embedding"}
    positions = _positions(kinds, facts)

    def wanted(tensor: Tensor) -> tuple[str, bool]:
        if tensor.name not in kinds:
            return "", False
        kind, position, stacked = kinds[tensor.name], positions[tensor.name], len(tensor.shape) > 2
        rules = (rule.use for rule in preset.rules if rule.matches(kind, stacked, position, facts))
        return next(rules, preset.most), kind == "output"

    return [wanted(tensor) for tensor in model.tensors]


def _positions(kinds: Mapping[str, str], facts: _Facts) -> dict[str, _Position]:
    """Return where every tensor is, as rules understand layers."""
    positions = {}
    met: dict[str, int] = {}
    value_matrices = sum(kind == "attention-value" for kind in kinds.values())
    for name in sorted(kinds, key=lambda name: (_block(name), name)):
        kind = kinds[name]
        count = met.get(kind, 0)
        met[kind] = count + 1
        if kind == "attention-value":
            positions[name] = _Position(count, value_matrices, count)
        else:
            positions[name] = _Position(_block(name) if facts.experts > 1 else count, facts.layers, count)
    return positions


def _block(name: str) -> int:
    match = re.match(r"blk\.(\d+)", name)
    return int(match[1]) if match else -1


@cache
def _kind(name: str) -> str:
    return next((kind for kind, pattern in _KINDS.items() if pattern.match(name)), "")


def _is_of_size(facts: _Facts, architecture: str, layers: int, shared: bool = False) -> bool:
    return facts.architecture == architecture and facts.layers == layers and (facts.shared_by != 1 or not shared)
