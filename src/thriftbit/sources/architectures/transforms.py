"""How a checkpoint's weights and a container's differ, and the way back.

A transform turns the tensors that a source name stands for (usually one) into the one tensor of the container, and
that one back into those. Both directions are views: nothing is read until somebody reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from thriftbit.errors import ThriftbitError
from thriftbit.sources import views
from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.tensor import Tensor

Order = NDArray[np.intp]
Shape = tuple[int, ...]


def _same(shape: Shape, dimensions: Dimensions) -> Shape:
    return shape


@dataclass(frozen=True)
class Transform:
    """forward: checkpoint -> container; inverse: container -> checkpoint; shape: a source tensor's -> the container's.
    Both directions take tensors whose shapes have been checked."""

    forward: Callable[[Sequence[Tensor], Dimensions], Tensor]
    inverse: Callable[[Tensor, Dimensions], list[Tensor]]
    shape: Callable[[Shape, Dimensions], Shape] = _same


def _reordering(order: Callable[[Dimensions], Order]) -> Transform:
    def forward(tensors: Sequence[Tensor], dimensions: Dimensions) -> Tensor:
        return views.reordered(tensors[0], order(dimensions))

    def inverse(tensor: Tensor, dimensions: Dimensions) -> list[Tensor]:
        return [views.reordered(tensor, np.argsort(order(dimensions)))]

    return Transform(forward, inverse)


@lru_cache(maxsize=8)
def _interleaved_halves(heads: int, head: int) -> Order:
    """Hugging Face's rotary embedding pairs entry i of a head with entry i + head / 2; ggml's original one, which the
    llama family uses, pairs neighbours. -> for each row of the latter, the row of the former."""
    if head % 2:
        raise ThriftbitError(f"A head of {head} entries cannot be rotated in pairs.")
    return np.arange(heads * head).reshape(heads, 2, head // 2).swapaxes(1, 2).ravel()


@lru_cache(maxsize=8)
def _grouped_by_projection(heads: int, key_value_heads: int, head: int) -> Order:
    """GPT-NeoX fuses query, key and value head by head; llama.cpp wants all queries, then all keys, then all values."""
    if heads != key_value_heads:
        raise ThriftbitError(f"{heads} heads and {key_value_heads} key-value heads cannot be fused head by head.")
    return np.arange(heads * 3 * head).reshape(heads, 3, head).swapaxes(0, 1).ravel()


def _shift(amount: float) -> Transform:
    return Transform(
        forward=lambda tensors, dimensions: views.shifted(tensors[0], amount),
        inverse=lambda tensor, dimensions: [views.shifted(tensor, -amount)],
    )


IDENTITY = Transform(lambda tensors, dimensions: tensors[0], lambda tensor, dimensions: [tensor])
INTERLEAVE_QUERY = _reordering(lambda d: _interleaved_halves(d.heads, d.head))
INTERLEAVE_KEY = _reordering(lambda d: _interleaved_halves(d.key_value_heads, d.head))
GROUP_QKV = _reordering(lambda d: _grouped_by_projection(d.heads, d.key_value_heads, d.head))
ADD_ONE = _shift(1.0)  # Gemma stores how far its norms are from one
TRANSPOSE = Transform(
    forward=lambda tensors, dimensions: views.transposed(tensors[0]),
    inverse=lambda tensor, dimensions: [views.transposed(tensor)],
    shape=lambda shape, dimensions: shape[::-1],
)
STACK = Transform(
    forward=lambda tensors, dimensions: views.stacked(tensors),
    inverse=lambda tensor, dimensions: [views.part(tensor, expert) for expert in range(dimensions.experts)],
    shape=lambda shape, dimensions: (dimensions.experts, *shape),
)
