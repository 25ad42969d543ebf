"""Tensors seen differently: reordered, stacked, split, joined, transposed.

A container lays weights out in its own way, and a checkpoint's weights do not fit in memory. So each function here
takes lazy tensors and returns a lazy tensor. Reading rows of a view reads the rows behind them, and no read holds more
than a small multiple of what it returns. Nothing is cached, and views of views work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thriftbit.sources.tensor import FloatArray, SameRows, Tensor

CLOSE = 4  # rows at most this far apart are read in one piece

_Read = Callable[[int, int], NDArray[Any]]
_Numbers = Callable[[NDArray[np.intp]], NDArray[np.intp]]


def _by_rows(sources: Sequence[Tensor], view: Callable[[Sequence[_Read]], _Read]) -> Callable[[int, int], FloatArray]:
    """Return a `Tensor.read` whose rows are whole rows of these tensors; `view` makes it from their readers.

    If one GGML format holds the rows of all of them, the result is `SameRows` of that format."""
    readers = [source.read for source in sources]
    same = [reader for reader in readers if isinstance(reader, SameRows)]
    if len(same) < len(readers):
        return view(readers)

    def format() -> str | None:
        formats = {reader.format() for reader in same}
        return formats.pop() if len(formats) == 1 else None

    if all(reader.factors is None for reader in same):
        factors = None
    else:
        factors = view([reader.factors or _ones for reader in same])
    without_factors = view([reader.without_factors for reader in same])
    return SameRows(without_factors, format, view([reader.blocks for reader in same]), factors)


def _ones(start: int, stop: int) -> FloatArray:
    return np.ones((stop - start, 1), np.float32)


def constant(name: str, values: FloatArray) -> Tensor:
    """A tensor of a few numbers that no checkpoint stores, such as rotary factors. values: float32, held in memory."""
    rows = values.astype(np.float32).reshape(-1, values.shape[-1])
    return Tensor(name, values.shape, "F32", lambda start, stop: rows[start:stop].copy())


def computed(tensor: Tensor, function: Callable[[FloatArray], FloatArray]) -> Tensor:
    """Return the tensor with `function` applied to its float32 values, number by number."""
    return replace(tensor, read=lambda start, stop: function(tensor.read(start, stop)).astype(np.float32))


def multiplied(tensor: Tensor, factors: FloatArray) -> Tensor:
    """Return the tensor with each row multiplied by its factor. factors: float32 (rows,)."""
    return replace(
        tensor, read=lambda start, stop: (tensor.read(start, stop) * factors[start:stop, None]).astype(np.float32)
    )


def multiplied_by(tensor: Tensor, factors: Callable[[int, int], FloatArray]) -> Tensor:
    """factors: (start, stop) -> float32 (stop - start, 1), one for every row. What is `SameRows` stays so."""
    read = tensor.read
    if isinstance(read, SameRows) and read.factors is None:
        return replace(tensor, read=replace(read, factors=factors))
    return replace(tensor, read=lambda start, stop: read(start, stop) * factors(start, stop))


def reordered(tensor: Tensor, order: NDArray[np.intp]) -> Tensor:
    """Position i along the first axis holds what the tensor has at order[i]. order: a permutation of that axis, which
    is the rows of a matrix and the entries of a vector. Neighbouring rows that stay neighbours are read together."""
    if len(tensor.shape) == 1:
        return columns(tensor, order)
    return chosen(tensor, tensor.shape, lambda rows: order[rows])


def columns(tensor: Tensor, order: NDArray[np.intp]) -> Tensor:
    """Return the entries order[0], order[1], ... of every row. (..., n) -> (..., len(order))."""
    shape = (*tensor.shape[:-1], len(order))
    return replace(tensor, shape=shape, read=lambda start, stop: tensor.read(start, stop)[:, order])


def chosen(tensor: Tensor, shape: tuple[int, ...], source_of: _Numbers) -> Tensor:
    """A tensor of this shape and the same width, made of the tensor's rows. source_of: the numbers of rows of the new
    one -> for each the number of a row of the tensor. Rows that lie close together are read together."""
    read = _by_rows([tensor], lambda reads: partial(_chosen_rows, reads[0], source_of))
    return replace(tensor, shape=shape, read=read)


def _chosen_rows(read: _Read, source_of: _Numbers, start: int, stop: int) -> NDArray[Any]:
    wanted = source_of(np.arange(start, stop))
    places = np.argsort(wanted, kind="stable")
    pieces = []
    for first, last in _runs(wanted[places]):
        numbers = wanted[places[first:last]]
        lowest, highest = int(numbers[0]), int(numbers[-1])
        piece = read(lowest, highest + 1)
        pieces.append(piece if len(piece) == len(numbers) else piece[numbers - lowest])
    ascending = np.concatenate(pieces) if pieces else read(0, 0)
    rows = np.empty_like(ascending)
    rows[places] = ascending
    return rows


def _runs(ascending: NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """Return (first, last) ranges of positions over which the numbers go up by `CLOSE` at most."""
    breaks = np.flatnonzero(np.diff(ascending) > CLOSE) + 1
    edges = [0, *breaks.tolist(), len(ascending)]
    return ((first, last) for first, last in pairwise(edges) if first < last)


def concatenated(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors of one width, one behind the other, as one matrix: (sum of their rows, width). Named as the first, with
    the source dtype of the first."""
    ends = np.cumsum([tensor.rows for tensor in tensors])
    read = _by_rows(tensors, lambda reads: partial(_concatenated_rows, reads, ends))
    return replace(tensors[0], shape=(int(ends[-1]), tensors[0].width), read=read)


def _concatenated_rows(reads: Sequence[_Read], ends: NDArray[np.intp], start: int, stop: int) -> NDArray[Any]:
    pieces, position = [], start
    while position < stop:
        index = int(np.searchsorted(ends, position, side="right"))
        before = int(ends[index - 1]) if index else 0
        last = min(stop, int(ends[index]))
        pieces.append(reads[index](position - before, last - before))
        position = last
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces) if pieces else reads[0](0, 0)


def split(tensor: Tensor, groups: int, sizes: Sequence[int]) -> list[Tensor]:
    """A tensor whose rows are `groups` times sum(sizes) -> for every size a matrix (groups * size, width), with that
    share of each group. The gates and ups of two experts in one tensor are split(tensor, 2, (ffn, ffn))."""
    total, parts, before = sum(sizes), [], 0
    for size in sizes:

        def source_of(rows: NDArray[np.intp], size: int = size, before: int = before) -> NDArray[np.intp]:
            return rows // size * total + before + rows % size

        parts.append(chosen(tensor, (groups * size, tensor.width), source_of))
        before += size
    return parts


def joined(tensors: Sequence[Tensor], groups: int) -> Tensor:
    """The inverse of `split`: matrices of equal width, whose rows are `groups` times a size of its own -> one matrix
    with a share of each in every group"""
    sizes = np.array([tensor.rows // groups for tensor in tensors])
    total = int(sizes.sum())
    within, before = np.cumsum(sizes) - sizes, (np.cumsum(sizes) - sizes) * groups

    def source_of(rows: NDArray[np.intp]) -> NDArray[np.intp]:
        group, place = np.divmod(rows, total)
        which = np.searchsorted(within, place, side="right") - 1
        found: NDArray[np.intp] = before[which] + group * sizes[which] + place - within[which]
        return found

    return chosen(concatenated(tensors), (groups * total, tensors[0].width), source_of)


def beside(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors with equal numbers of rows, side by side: (..., a), (..., b) -> (..., a + b)."""
    width = sum(tensor.width for tensor in tensors)

    def read(start: int, stop: int) -> FloatArray:
        return np.concatenate([tensor.read(start, stop) for tensor in tensors], axis=1)

    return replace(tensors[0], shape=(*tensors[0].shape[:-1], width), read=read)


def reshaped(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the same numbers in the same order. If the width changes, all are read at once, so use it for small
    tensors."""
    if shape[-1] == tensor.width:
        return replace(tensor, shape=shape)
    width = shape[-1]
    return replace(tensor, shape=shape, read=lambda start, stop: tensor.load().reshape(-1, width)[start:stop])


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Equal shapes (...) one behind the other: (len(tensors), ...). Named as the first; one source dtype for all, that
    of the first."""
    return replace(concatenated(tensors), shape=(len(tensors), *tensors[0].shape))


def part(tensor: Tensor, index: int) -> Tensor:
    """One entry of the first axis: (n, ...) -> (...), the inverse of `stacked`."""
    shape = tensor.shape[1:]
    rows = tensor.rows // tensor.shape[0]
    read = _by_rows([tensor], lambda reads: lambda start, stop: reads[0](index * rows + start, index * rows + stop))
    return replace(tensor, shape=shape, read=read)


@dataclass(frozen=True)
class _Transposed:
    """Reads columns of the tensor behind it as rows: (..., a, b) -> (..., b, a)."""

    behind: Tensor

    def __call__(self, start: int, stop: int) -> FloatArray:
        height, width = self.behind.matrix_rows, self.behind.width
        rows = np.empty((stop - start, height), dtype=np.float32)
        position = start
        while position < stop:
            matrix, first = divmod(position, width)
            last = min(width, first + stop - position)
            into = rows[position - start : position - start + last - first]
            stripe = max(1, (last - first) * height // width)
            for top in range(0, height, stripe):
                bottom = min(top + stripe, height)
                above = matrix * height
                into[:, top:bottom] = self.behind.read(above + top, above + bottom)[:, first:last].T
            position += last - first
        return rows


def transposed(tensor: Tensor) -> Tensor:
    """(..., a, b) -> (..., b, a), each matrix of a stack by itself. A row of the view is a column behind it, so every
    read passes over a whole matrix once, in stripes no larger than the result. So read in large chunks. Transposing
    twice gives the tensor itself and costs nothing."""
    if isinstance(tensor.read, _Transposed):
        return replace(tensor.read.behind, name=tensor.name, role=tensor.role)
    *lead, height, width = tensor.shape
    return replace(tensor, shape=(*lead, width, height), read=_Transposed(tensor))
