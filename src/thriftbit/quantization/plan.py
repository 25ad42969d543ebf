"""A plan: the format of every tensor of a model, and with it the exact size of the file, before anything runs.

A preset, a preset with exceptions, a person with an editor, or an optimizer makes the plan. The loop, the dry run and
the file's own metadata read it. A plan is checked against the model when it is made, so that the long run cannot fail
for a reason that was visible before.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType

from thriftbit.containers.entry import Entry
from thriftbit.containers.ggml_types import format_of
from thriftbit.containers.regular_files import read_regular
from thriftbit.errors import ThriftbitError, UsageError
from thriftbit.formats import FORMATS, format_named
from thriftbit.notebook import html_table
from thriftbit.quantization.preset_names import preset_named
from thriftbit.quantization.presets import (
    KEPT_FORMAT,
    PRESETS,
    choose_formats,
    fitting_format,
    is_quantizable,
    kept_format,
)
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import Tensor

JSON_VERSION = 1
CUSTOM = "custom"
LARGEST_PLAN_BYTES = 64 << 20  # a plan has a line for each tensor


@dataclass(frozen=True)
class Plan:
    """formats: the format name of every tensor, in the model's order. preset: where it came from, or "custom".
    provenance: who decided, in a sentence for people."""

    formats: Mapping[str, str]
    preset: str
    provenance: str

    def entries(self, model: Model) -> list[Entry]:
        """Return what the container has to hold, in order."""
        return [Entry(tensor.name, tensor.shape, format_of(self.formats[tensor.name])) for tensor in model.tensors]

    def weights_bytes(self, model: Model) -> int:
        """Return the bytes of all tensors, without metadata and padding."""
        return sum(entry.size_bytes for entry in self.entries(model))

    def bits_per_weight(self, model: Model) -> float:
        """Return the bits of tensor data per parameter of the model, everything included, as llama.cpp counts."""
        return 8 * self.weights_bytes(model) / model.parameters

    def most_common_format(self, model: Model) -> str:
        """Return the format that holds most of the parameters."""
        parameters: Counter[str] = Counter()
        for tensor in model.tensors:
            parameters[self.formats[tensor.name]] += tensor.parameters
        return parameters.most_common(1)[0][0]

    def to_json(self, compact: bool = False) -> str:
        document = {
            "thriftbit_plan": JSON_VERSION,
            "preset": self.preset,
            "provenance": self.provenance,
            "tensors": dict(self.formats),
        }
        return json.dumps(document, separators=(",", ":") if compact else None, indent=None if compact else 2)

    @classmethod
    def from_file(cls, path: Path, model: Model) -> Plan:
        """Return the plan in a file, as `from_json`; ThriftbitError names the file."""
        try:
            text = read_regular(path, LARGEST_PLAN_BYTES).decode("utf-8")
        except UnicodeDecodeError:
            raise ThriftbitError(f"{path}: is no plan: it is not text; a dry run with --json prints one") from None
        try:
            return cls.from_json(text, model)
        except ThriftbitError as error:
            raise ThriftbitError(f"{path}: {error}") from None

    @classmethod
    def from_json(cls, text: str, model: Model) -> Plan:
        """Return the plan that `to_json` wrote, alone or inside a dry run's JSON. ThriftbitError if it does not fit."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ThriftbitError(f"the plan is not JSON: {error}") from None
        if isinstance(document, dict):
            document = document.get("plan", document)
        if not isinstance(document, dict) or document.get("thriftbit_plan") != JSON_VERSION:
            raise ThriftbitError(f'the plan is not one of ours: it should say "thriftbit_plan": {JSON_VERSION}')
        named = document.get("tensors")
        if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
            raise ThriftbitError('the plan should have "tensors": tensor names, each with the name of a format')
        preset, provenance = document.get("preset", CUSTOM), document.get("provenance", "a plan file")
        if preset not in (*PRESETS, CUSTOM):
            raise ThriftbitError(f'the plan\'s "preset" should be "{CUSTOM}" or one of {", ".join(PRESETS)}')
        if not isinstance(provenance, str):
            raise ThriftbitError('the plan\'s "provenance" should be a sentence')
        return checked_plan(model, named, preset, provenance)

    def __repr__(self) -> str:
        formats = ", ".join(f"{name} × {count}" for name, count in Counter(self.formats.values()).most_common())
        return f"Plan({self.preset}: {formats})"

    def _repr_html_(self) -> str:
        rows = Counter(self.formats.values()).most_common()
        return html_table(f"Plan {self.preset}, from {self.provenance}", ("format", "tensors"), rows)


def make_plan(
    model: Model, preset: str, *, overrides: Iterable[tuple[str, str]] = (), importance: bool = False
) -> Plan:
    """Return what `llama-quantize` would do under this preset's name, with exceptions.

    overrides: (tensors, format name) pairs, the first that matches a tensor decides. `tensors` is a role
    ("attention-value"), a part of the name ("ffn_down", "output") or a pattern for all of it ("blk.1?.*"); small
    tensors that are always kept in F32 stay so, and rows that do not fit the format get its fallback.
    importance: whether importance data will be used, which changes some presets.
    Raises UsageError for an unknown preset or format and for an override that matches nothing."""
    chosen = preset_named(preset)
    formats = choose_formats(model, chosen, importance)
    overrides = [(pattern, format_named(name).name) for pattern, name in overrides]
    quantizable = [tensor for tensor in model.tensors if is_quantizable(tensor)]
    for pattern, name in reversed(overrides):  # so that the first has the last word
        matched = [tensor for tensor in quantizable if _matches(pattern, tensor)]
        if not matched:
            raise UsageError(f"{pattern}={name}: no tensor that can be quantized has this role, name or pattern")
        formats |= {tensor.name: fitting_format(name, tensor.width) for tensor in matched}
    exceptions = "".join(f", {pattern}={name}" for pattern, name in overrides)
    provenance = f"preset {chosen.name}{' for importance data' if importance else ''}{exceptions}"
    return checked_plan(model, formats, chosen.name, provenance)


def checked_plan(model: Model, formats: Mapping[str, str], preset: str, provenance: str) -> Plan:
    """Return the plan, if it names exactly the model's tensors, each with a format that can hold it. Else
    ThriftbitError."""
    names = {tensor.name for tensor in model.tensors}
    for name in formats:
        if name not in names:
            raise ThriftbitError(f"{name!r}: the plan names this tensor, and {model.source} does not have it")
    ordered = {}
    for tensor in model.tensors:
        if tensor.name not in formats:
            raise ThriftbitError(f"{tensor.name}: the plan does not say which format this tensor gets")
        ordered[tensor.name] = _checked_format(tensor, formats[tensor.name])
    return Plan(MappingProxyType(ordered), preset, provenance)


def _checked_format(tensor: Tensor, name: str) -> str:
    try:
        format = format_named(name)
        format.row_bytes(tensor.width)
    except ThriftbitError as error:
        raise ThriftbitError(f"{tensor.name}: {error}") from None
    if not format.can_encode:
        choices = ", ".join(format.name for format in FORMATS.values() if format.can_encode)
        raise ThriftbitError(f"{tensor.name}: {name} can only be read; choose one of {choices}")
    if format.name not in (KEPT_FORMAT, kept_format(tensor)) and not is_quantizable(tensor):
        raise ThriftbitError(f"{tensor.name}: has to be {KEPT_FORMAT}, because llama.cpp expects it so; it is small")
    return format.name


def _matches(pattern: str, tensor: Tensor) -> bool:
    return pattern == tensor.role or pattern in tensor.name.split(".") or fnmatchcase(tensor.name, pattern)
