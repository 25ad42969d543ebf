"""The rows of a family's table, filled in: which tensors of a checkpoint become which tensors of the container.

An entry is one row for one layer. `take_sources` finds an entry's tensors in a checkpoint, however they are spelled
there. Shapes and counts are compared with the model's numbers before anything of that size is made."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from thriftbit.errors import ThriftbitError, enumeration
from thriftbit.sources import views
from thriftbit.sources.architectures.configuration import Configuration, finite
from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.architectures.rows import Row
from thriftbit.sources.tensor import FloatArray, Tensor, WeightsElsewhereError


@dataclass(frozen=True)
class Entry:
    """A row filled in for one layer: the source tensors, the container's tensors, and the numbers of that layer."""

    row: Row
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    model: Dimensions

    @property
    def source_shape(self) -> tuple[int, ...]:
        return self.model.shape(self.row.shape)

    def target_shapes(self) -> list[tuple[int, ...]]:
        hollow = [Tensor(name, self.source_shape, "F32", not_there) for name in self.sources]
        return [tensor.shape for tensor in self.row.transform.forward(hollow, self.model)]

    def spellings(self) -> Iterator[tuple[str, ...]]:
        """Yield every set of names under which a checkpoint may store the weights, in the order of joining;
        transformers' own first."""
        yield self.sources
        places = {"layer": self.model.layer, "ahead": (self.model.layer or 0) - self.model.layers}
        for names in self.row.spellings:
            experts = range(self.model.experts if any("{expert}" in name for name in names) else 1)
            yield tuple(name.format(expert=expert, **places) for expert in experts for name in names)


def filled(row: Row, model: Dimensions, layer: int = 0) -> Entry:
    """Return the row with the names of its tensors for one layer. model: the numbers of that layer."""
    places = {"layer": layer, "ahead": layer - model.layers}
    numbers = range(model.length(row.count)) if row.count else range(1)
    sources = tuple(row.source.format(number=number, **places) for number in numbers)
    return Entry(row, sources, tuple(target.format(**places) for target in row.targets), model)


def take_sources(entry: Entry, found: dict[str, Tensor], missing: list[str], who: str) -> list[Tensor]:
    """Take the entry's source tensors out of `found`, however they are spelled, and return them. If some are missing,
    return [] and add their names to `missing`. who: begins the error of a wrong shape."""
    shape = entry.source_shape
    spellings = list(entry.spellings())
    names = max(spellings, key=lambda names: sum(name in found for name in names) / len(names))
    lacking = [name for name in names if name not in found]
    if entry.row.optional and len(lacking) == len(names):
        return []
    missing += lacking
    tensors = [found.pop(name) for name in names if name in found]
    if entry.row.turned:
        tensors = [_the_other_way_round(tensor, shape) for tensor in tensors]
    expected = (math.prod(shape[:-1]) // len(names), shape[-1]) if len(names) > len(entry.sources) else shape
    for tensor in tensors:
        expect_shape(tensor, expected, who)
    if lacking:
        return []
    return [views.reshaped(views.concatenated(tensors), shape)] if len(names) > len(entry.sources) else tensors


def _the_other_way_round(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the tensor, transposed if that gives it the shape and nothing else does."""
    turned = (*shape[:-2], shape[-1], shape[-2])
    return views.transposed(tensor) if tensor.shape == turned != shape else tensor


def multiplied(tensor: Tensor, configuration: Configuration, setting: str) -> Tensor:
    """Return the tensor multiplied by a setting: one number, or a list with a number for every row."""
    value = configuration.get(setting)
    if isinstance(value, list):
        return views.multiplied(tensor, np.array([finite(each, setting) for each in value], np.float32))
    return views.multiplied(tensor, np.full(tensor.rows, finite(value, setting), np.float32))


def not_there(start: int, stop: int) -> FloatArray:
    raise WeightsElsewhereError("only the configuration of this model is here, and not its weights")


def expect_shape(tensor: Tensor, expected: tuple[int, ...], who: str) -> None:
    if tensor.shape != expected:
        raise ThriftbitError(f"{who} {expected} for {tensor.name}, and its shape is {tensor.shape}.")


def expect_as_many(tensors: list[Tensor], entry: Entry) -> None:
    """Raise ThriftbitError unless the targets have as many weights as the metadata implies for the sources.
    Called before anything of that size is made."""
    implied = math.prod(entry.source_shape) * len(entry.sources)
    if sum(tensor.parameters for tensor in tensors) != implied:
        shapes = " and ".join(str(tensor.shape) for tensor in tensors)
        raise ThriftbitError(
            f"GGUF metadata implies {implied:,} weights for {enumeration(entry.targets)}, and its shape is {shapes}."
        )
