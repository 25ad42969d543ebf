"""All that a plan can choose from, as tables: the loss, the bytes and the time of each tensor in each format."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from thriftbit.containers.gguf_values import alignment_of, padded
from thriftbit.formats import format_named
from thriftbit.quantization.gguf_file import file_layout
from thriftbit.quantization.importance import ImportanceMatrix
from thriftbit.quantization.knapsack import Floats, Picks
from thriftbit.quantization.plan import CUSTOM, Plan, checked_plan
from thriftbit.quantization.presets import kept_format
from thriftbit.quantization.sensitivity import Sensitivities, offered_formats
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import Tensor


@dataclass(frozen=True)
class Choices:
    """tensors: the ones with a choice. names: of the formats of each. losses, file_bytes, weight_bytes, seconds:
    float64 (tensors, formats); losses are infinite for a choice that a tensor does not have. seconds: to read the
    tensor for one token; None where no rates are known. fixed_file_bytes, fixed_weight_bytes: of all other tensors."""

    model: Model
    effort: str
    importance: ImportanceMatrix | None
    tensors: Sequence[Tensor]
    names: Sequence[Sequence[str]]
    losses: Floats
    file_bytes: Floats
    weight_bytes: Floats
    seconds: Floats | None
    fixed_file_bytes: float
    fixed_weight_bytes: float

    @classmethod
    def of(
        cls,
        model: Model,
        sensitivities: Sensitivities,
        effort: str,
        rates: Mapping[str, float] | None,
        importance: ImportanceMatrix | None,
    ) -> Choices:
        """rates: bytes per second of each format. A format without a rate is no choice."""
        names = {}
        for tensor in model.tensors:
            known = sensitivities.losses.get(tensor.name, {})
            offered = [format.name for format in offered_formats(tensor) if format.name in known]
            names[tensor.name] = [name for name in offered if rates is None or name in rates]
        tensors = [tensor for tensor in model.tensors if names[tensor.name]]
        alignment = alignment_of(model.metadata)

        def in_file(tensor: Tensor, name: str) -> float:
            return padded(_size_bytes(tensor, name), alignment) + len(name)  # its name stands in the plan in the file

        def table(value: Callable[[Tensor, str], float], missing: float = 0.0) -> Floats:
            rows = np.full((len(tensors), max((len(names[t.name]) for t in tensors), default=1)), missing)
            for row, tensor in zip(rows, tensors, strict=True):
                row[: len(names[tensor.name])] = [value(tensor, name) for name in names[tensor.name]]
            return rows

        file_bytes, weight_bytes = table(in_file), table(_size_bytes)
        first = [names[tensor.name][0] for tensor in tensors]
        plan = _plan(model, tensors, first, "")
        rest = file_layout(model, plan, importance, effort=effort).file_size_bytes - file_bytes[:, 0].sum()
        return cls(
            model,
            effort,
            importance,
            tensors,
            [names[tensor.name] for tensor in tensors],
            table(lambda tensor, name: sensitivities.loss_of(tensor.name, name, effort), math.inf),
            file_bytes,
            weight_bytes,
            None if rates is None else table(lambda tensor, name: _read_bytes(model, tensor, name) / rates[name]),
            float(rest),
            float(plan.weights_bytes(model) - weight_bytes[:, 0].sum()),
        )

    @property
    def costs_in_bytes(self) -> Floats:
        """Return `file_bytes`, infinite for choices that a tensor does not have."""
        return np.where(np.isfinite(self.losses), self.file_bytes, math.inf)

    def plan(self, picks: Picks, provenance: str) -> Plan:
        chosen = [own[pick] for own, pick in zip(self.names, picks, strict=True)]
        return _plan(self.model, self.tensors, chosen, provenance)

    def size_bytes(self, plan: Plan) -> int:
        """Return the exact size of the plan's file."""
        return file_layout(self.model, plan, self.importance, effort=self.effort).file_size_bytes


def _plan(model: Model, tensors: Sequence[Tensor], names: Sequence[str], provenance: str) -> Plan:
    formats = {tensor.name: kept_format(tensor) for tensor in model.tensors}
    formats |= {tensor.name: name for tensor, name in zip(tensors, names, strict=True)}
    return checked_plan(model, formats, CUSTOM, provenance)


def _size_bytes(tensor: Tensor, format_name: str) -> int:
    return tensor.rows * format_named(format_name).row_bytes(tensor.width)


def _read_bytes(model: Model, tensor: Tensor, format_name: str) -> float:
    """Return how many bytes of the tensor are read to write one token: one row of an embedding, the used experts."""
    size_bytes = _size_bytes(tensor, format_name)
    if tensor.name == "token_embd.weight" and any(other.name == "output.weight" for other in model.tensors):
        return size_bytes / tensor.rows
    if "_exps." in tensor.name:
        used, count = (
            model.metadata.get(f"{model.architecture}.{key}") for key in ("expert_used_count", "expert_count")
        )
        if isinstance(used, np.integer) and isinstance(count, np.integer) and count:
            return size_bytes * int(used) / int(count)
    return size_bytes
