"""Tensors seen differently: reordered, shifted, stacked, transposed.

A container lays weights out in its own way, and a checkpoint's weights do not fit in memory. So each function here
takes tensors that are not in memory and returns one that is not either: reading rows of a view reads the rows behind
them, and no read holds more than a small multiple of what it returns. Nothing is cached; a view of a view is fine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from thriftbit.sources.tensor import FloatArray, Tensor


def constant(name: str, values: FloatArray) -> Tensor:
    """A tensor of a few numbers that no checkpoint stores, such as rotary factors. values: float32, held in memory."""
    rows = values.astype(np.float32).reshape(-1, values.shape[-1])
    return Tensor(name, values.shape, "F32", lambda start, stop: rows[start:stop].copy())


def shifted(tensor: Tensor, amount: float) -> Tensor:
    """Every weight plus `amount`, added in float32."""
    return replace(tensor, read=lambda start, stop: tensor.read(start, stop) + np.float32(amount))


def reordered(tensor: Tensor, order: NDArray[np.intp]) -> Tensor:
    """Position i along the first axis holds what the tensor has at order[i]. order: a permutation of that axis, which
    is the rows of a matrix and the entries of a vector. Neighbouring rows that stay neighbours are read together."""
    if len(tensor.shape) == 1:
        return replace(tensor, read=lambda start, stop: tensor.read(start, stop)[:, order])

    def read(start: int, stop: int) -> FloatArray:
        wanted = order[start:stop]
        rows = np.empty((len(wanted), tensor.width), dtype=np.float32)
        places = np.argsort(wanted)
        for first, last in _runs(wanted[places]):
            source = int(wanted[places[first]])
            rows[places[first:last]] = tensor.read(source, source + last - first)
        return rows

    return replace(tensor, read=read)


def _runs(ascending: NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """-> (first, last) ranges of positions over which the numbers go up by exactly one"""
    breaks = np.flatnonzero(np.diff(ascending) != 1) + 1
    edges = [0, *breaks.tolist(), len(ascending)]
    return ((first, last) for first, last in pairwise(edges) if first < last)


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Equal shapes (...) one behind the other: (len(tensors), ...). Named as the first; one source dtype for all, that
    of the first."""
    first = tensors[0]
    rows_each = first.rows

    def read(start: int, stop: int) -> FloatArray:
        rows = np.empty((stop - start, first.width), dtype=np.float32)
        position = start
        while position < stop:
            index, offset = divmod(position, rows_each)
            count = min(stop - position, rows_each - offset)
            rows[position - start : position - start + count] = tensors[index].read(offset, offset + count)
            position += count
        return rows

    return replace(first, shape=(len(tensors), *first.shape), read=read)


def part(tensor: Tensor, index: int) -> Tensor:
    """One entry of the first axis: (n, ...) -> (...), the inverse of `stacked`."""
    shape = tensor.shape[1:]
    rows = tensor.rows // tensor.shape[0]
    return replace(tensor, shape=shape, read=lambda start, stop: tensor.read(index * rows + start, index * rows + stop))


def transposed(tensor: Tensor) -> Tensor:
    """(a, b) -> (b, a). A row of the view is a column behind it, so every read passes over the whole tensor once, in
    stripes no larger than what it returns: read in large chunks, or the passes add up."""
    height, width = tensor.shape

    def read(start: int, stop: int) -> FloatArray:
        rows = np.empty((stop - start, height), dtype=np.float32)
        stripe = max(1, (stop - start) * height // width)
        for top in range(0, height, stripe):
            bottom = min(top + stripe, height)
            rows[:, top:bottom] = tensor.read(top, bottom)[:, start:stop].T
        return rows

    return replace(tensor, shape=(width, height), read=read)
