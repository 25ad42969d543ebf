"""Transforms between a checkpoint's weights and a container's, in both directions.

A transform turns the source tensors of a row (usually one) into its target tensors (usually one), and back. Both
directions are views, so nothing is read until rows are asked for. Shapes of targets follow from those of sources, by
applying the transform to tensors without weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from thriftbit.errors import ThriftbitError
from thriftbit.sources import views
from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.tensor import FloatArray, Tensor

Order = NDArray[np.intp]
Way = Callable[[Sequence[Tensor], Dimensions], Sequence[Tensor]]


@dataclass(frozen=True)
class Transform:
    """forward: checkpoint -> container; inverse: container -> checkpoint. Both take tensors whose shapes have been
    checked, and the model's numbers as the tensors' layer sees them."""

    forward: Way
    inverse: Way

    def then(self, after: Transform) -> Transform:
        """Return the transform that applies this one and then `after`."""
        return Transform(
            lambda tensors, model: after.forward(self.forward(tensors, model), model),
            lambda tensors, model: self.inverse(after.inverse(tensors, model), model),
        )

    def of_target(self, number: int, after: Transform) -> Transform:
        """Return the transform that applies this one, and then `after` to the target of that number alone."""

        def apply(way: Way, tensors: Sequence[Tensor], model: Dimensions) -> list[Tensor]:
            return [*tensors[:number], *way([tensors[number]], model), *tensors[number + 1 :]]

        return Transform(
            lambda tensors, model: apply(after.forward, self.forward(tensors, model), model),
            lambda tensors, model: self.inverse(apply(after.inverse, tensors, model), model),
        )


def each(forward: Callable[[Tensor, Dimensions], Tensor], inverse: Callable[[Tensor, Dimensions], Tensor]) -> Transform:
    """Return a transform that treats each tensor by itself."""
    return Transform(
        lambda tensors, model: [forward(tensor, model) for tensor in tensors],
        lambda tensors, model: [inverse(tensor, model) for tensor in tensors],
    )


def reorder_rows(order: Callable[[Dimensions], Order]) -> Transform:
    """Return a transform that reorders rows, or the entries of a vector.

    order: gives for each row of the container the row of the checkpoint."""
    return each(
        lambda tensor, model: views.reordered(tensor, order(model)),
        lambda tensor, model: views.reordered(tensor, np.argsort(order(model))),
    )


def reorder_columns(order: Callable[[Dimensions], Order]) -> Transform:
    return each(
        lambda tensor, model: views.columns(tensor, order(model)),
        lambda tensor, model: views.columns(tensor, np.argsort(order(model))),
    )


def split(words: str, groups: str = "1", *, parts: tuple[str, ...] = (), whole: str = "") -> Transform:
    """Return a transform from one tensor, whose rows come in groups, to several, each with its share of every group.

    words: the lengths of the shares. groups: the number of groups. split("ffn ffn", "experts") separates every expert's
    gate from its up projection. parts: shapes of the results. whole: the shape of the tensor that was split. The
    default of both is a matrix."""

    def forward(tensors: Sequence[Tensor], model: Dimensions) -> list[Tensor]:
        found = views.split(tensors[0], model.length(groups), model.shape(words))
        return (
            [replace(each, shape=model.shape(shape)) for each, shape in zip(found, parts, strict=True)]
            if parts
            else found
        )

    def inverse(tensors: Sequence[Tensor], model: Dimensions) -> list[Tensor]:
        found = views.joined(tensors, model.length(groups))
        return [replace(found, shape=model.shape(whole)) if whole else found]

    return Transform(forward, inverse)


def alternate_columns() -> Transform:
    """Return a transform from one tensor to two: its even columns and its odd ones."""

    def inverse(tensors: Sequence[Tensor], model: Dimensions) -> list[Tensor]:
        width = tensors[0].width
        return [views.columns(views.beside(tensors), np.arange(2 * width).reshape(2, width).T.ravel())]

    return Transform(
        lambda tensors, model: [views.columns(tensors[0], np.arange(odd, tensors[0].width, 2)) for odd in (0, 1)],
        inverse,
    )


def reshape(words: str) -> Transform:
    """Return a transform to another shape. words: the container's shape. The inverse takes the shape from the row."""
    return each(lambda tensor, model: views.reshaped(tensor, model.shape(words)), lambda tensor, model: tensor)


@lru_cache(maxsize=8)
def _interleaved_halves(heads: int, head: int) -> Order:
    """Return for each row of GGML's original layout, which the llama family uses, the row of Hugging Face's layout.

    Hugging Face's rotary embedding pairs entry i of a head with entry i + head / 2; GGML's original one pairs
    neighbours."""
    if head % 2:
        raise ThriftbitError(f"A head of {head} entries cannot be rotated in pairs.")
    return np.arange(heads * head).reshape(heads, 2, head // 2).swapaxes(1, 2).ravel()


@lru_cache(maxsize=8)
def _grouped_by_projection(heads: int, key_value_heads: int, head: int) -> Order:
    """Return the order of rows from GPT-NeoX, which fuses query, key and value head by head, to llama.cpp, which has
    all queries, then all keys, then all values."""
    if heads != key_value_heads:
        raise ThriftbitError(f"{heads} heads and {key_value_heads} key-value heads cannot be fused head by head.")
    return np.arange(heads * 3 * head).reshape(heads, 3, head).swapaxes(0, 1).ravel()


def compute(forward: Callable[[FloatArray], FloatArray], inverse: Callable[[FloatArray], FloatArray]) -> Transform:
    """Return a transform that treats each number by itself."""
    return each(
        lambda tensor, model: views.computed(tensor, forward),
        lambda tensor, model: views.computed(tensor, inverse),
    )


IDENTITY = Transform(lambda tensors, model: tensors, lambda tensors, model: tensors)
INTERLEAVE_QUERY = reorder_rows(lambda d: _interleaved_halves(d.heads, d.head))
INTERLEAVE_KEY = reorder_rows(lambda d: _interleaved_halves(d.key_value_heads, d.head))
GROUP_QKV = reorder_rows(lambda d: _grouped_by_projection(d.heads, d.key_value_heads, d.head))
ADD_ONE = compute(lambda values: values + np.float32(1), lambda values: values - np.float32(1))
TRANSPOSE = each(lambda tensor, model: views.transposed(tensor), lambda tensor, model: views.transposed(tensor))
STACK = Transform(
    lambda tensors, model: [views.stacked(tensors)],
    lambda tensors, model: [views.part(tensors[0], index) for index in range(tensors[0].shape[0])],
)
# Checkpoints store logarithms of decay rates, llama.cpp the rates themselves.
MINUS_EXP = compute(lambda values: -np.exp(values), lambda values: np.log(-values))
