"""The container's tensor of each of transformers' parameters, and the order of rows and columns within it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from thriftbit.network.matched import match
from thriftbit.network.network import Network
from thriftbit.sources.architectures import architecture_from_gguf
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import FloatArray, Tensor


@dataclass(frozen=True)
class StoredParameter:
    """The container's tensor that a parameter is stored in. order: the parameter's row for each row of the tensor.
    columns: the parameter's column for each column of the tensor."""

    container_name: str
    order: NDArray[np.int64]
    columns: NDArray[np.int64]


def stored_parameters(model: Model, network: Network) -> dict[str, StoredParameter]:
    """Return where each parameter is stored that is one of the container's tensors with rows and columns in some order.
    The numbers of tensors, rows and columns are sent through the family's table in place of weights. Without a table,
    the result of matching by content is used."""
    if model.conversion is not None:
        return _matched_parameters(model, network)
    architecture = architecture_from_gguf(model.architecture, model.metadata)
    sent = [
        architecture.unmap_tensors(numbers, model.metadata)
        for numbers in (
            _named(model),
            [replace(tensor, read=_RowNumbers(tensor.width)) for tensor in model.tensors],
            [replace(tensor, read=_ColumnNumbers(tensor.width)) for tensor in model.tensors],
        )
    ]
    found = {}
    for owner, row, column in zip(*sent, strict=True):
        if not (owner.name.startswith(f"{network.layers_name}.") and len(owner.shape) == 2):
            continue
        owners, rows, columns = owner.load(), row.load(), column.load()
        tensor = model.tensors[int(owners[0, 0])]
        whole = (owners == owners[0, 0]).all() and (rows == rows[:, :1]).all() and (columns == columns[:1]).all()
        if whole and owner.shape == tensor.shape and _is_order(rows[:, 0]) and _is_order(columns[0]):
            found[owner.name] = StoredParameter(tensor.name, np.argsort(rows[:, 0]), np.argsort(columns[0]))
    return found


def _is_order(numbers: FloatArray) -> bool:
    return bool((np.sort(numbers) == np.arange(len(numbers))).all())


def stored_experts(model: Model, names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return for each parameter the container's tensors with the matrices that it joins for each expert, in order.

    names: of parameters that join the experts of a layer."""
    if model.conversion is not None:
        return _matched_experts(model, names)
    architecture = architecture_from_gguf(model.architecture, model.metadata)
    entries = architecture.entries(architecture.dimensions(model.metadata))
    return {entry.sources[0]: entry.targets for entry in entries if entry.sources[0] in names}


def _matched_parameters(model: Model, network: Network) -> dict[str, StoredParameter]:
    found = {}
    for name, origin in match(model).origins.items():
        tensor = model.tensors[int(origin.tensor[0])]
        inside = name.startswith(f"{network.layers_name}.") and len(tensor.shape) == 2
        whole = not (origin.turned or origin.across.any()) and (origin.tensor == origin.tensor[0]).all()
        if inside and whole and (np.sort(origin.line) == np.arange(len(origin.line))).all():
            columns = np.arange(tensor.width) if origin.columns is None else origin.columns
            if len(origin.line) == tensor.rows:
                found[name] = StoredParameter(tensor.name, np.argsort(origin.line), np.argsort(columns))
    return found


def _matched_experts(model: Model, names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the same for a model without a table. Parameters whose experts have other numbers in the container are
    left out."""
    origins, found = match(model).origins, {}
    rows_each = np.array([tensor.matrix_rows for tensor in model.tensors])
    for name in names:
        origin = origins.get(name)
        if origin is None or origin.across.any() or origin.columns is not None:
            continue
        tensors = [model.tensors[number] for number in dict.fromkeys(origin.tensor.tolist())]
        experts = tensors[0].shape[0]
        numbers = np.repeat(np.arange(experts), len(origin.line) // experts)
        stacked = all(len(tensor.shape) == 3 and tensor.shape[0] == experts for tensor in tensors)
        if stacked and (origin.line // rows_each[origin.tensor] == numbers).all():
            found[name] = tuple(tensor.name for tensor in tensors)
    return found


def _named(model: Model) -> list[Tensor]:
    """Return the model's tensors, each filled with its own number."""
    return [replace(tensor, read=_Constant(i, tensor.width)) for i, tensor in enumerate(model.tensors)]


@dataclass(frozen=True)
class _Constant:
    value: int
    width: int

    def __call__(self, start: int, stop: int) -> FloatArray:
        return np.full((stop - start, self.width), self.value, np.float32)


@dataclass(frozen=True)
class _RowNumbers:
    width: int

    def __call__(self, start: int, stop: int) -> FloatArray:
        return np.repeat(np.arange(start, stop, dtype=np.float32)[:, None], self.width, axis=1)


@dataclass(frozen=True)
class _ColumnNumbers:
    width: int

    def __call__(self, start: int, stop: int) -> FloatArray:
        return np.repeat(np.arange(self.width, dtype=np.float32)[None], stop - start, axis=0)
