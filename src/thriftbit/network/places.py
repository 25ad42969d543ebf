"""Where the parameters that transformers computes with lie in the container: which tensor, which order of rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from thriftbit.network.network import Network
from thriftbit.network.weights import Weights
from thriftbit.sources.architectures import architecture_from_gguf
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import FloatArray, Tensor


@dataclass(frozen=True)
class Place:
    """The container's tensor that a parameter is stored in, and the parameter's row for each of its rows."""

    container_name: str
    order: NDArray[np.int64]


def places(model: Model, network: Network) -> dict[str, Place]:
    """-> for each parameter that is one of the container's tensors with its rows in some order. Found by sending row
    numbers the way that weights go."""
    architecture = architecture_from_gguf(model.architecture, model.metadata)
    named = _named(model)
    numbered = [replace(tensor, read=_RowNumbers(tensor.width)) for tensor in model.tensors]
    found = {}
    for owner, number in zip(
        architecture.unmap_tensors(named, model.metadata),
        architecture.unmap_tensors(numbered, model.metadata),
        strict=True,
    ):
        if not (owner.name.startswith(f"{network.layers_name}.") and len(owner.shape) == 2):
            continue
        owners, numbers = owner.load(), number.load()
        tensor = model.tensors[int(owners[0, 0])]
        order = numbers[:, 0].astype(np.int64)
        whole = (owners == owners[0, 0]).all() and (numbers == numbers[:, :1]).all() and owner.shape == tensor.shape
        if whole and (np.sort(order) == np.arange(tensor.rows)).all():
            found[owner.name] = Place(tensor.name, np.argsort(order))
    return found


def expert_places(model: Model, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """names: of parameters that join the experts of a layer. -> for each the container's tensors with the matrices that
    it joins for each expert, in the order of joining"""
    weights = Weights(replace(model, tensors=tuple(_named(model))))
    return {
        name: tuple(model.tensors[int(part[0].load(0, 1)[0, 0])].name for part in weights.experts(name))
        for name in names
    }


def _named(model: Model) -> list[Tensor]:
    """-> the model's tensors, each full of its own number"""
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
