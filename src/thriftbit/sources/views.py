"""Tensors seen differently: reordered, shifted, stacked, transposed.

A container lays weights out in its own way, and a checkpoint's weights do not fit in memory. So each function here
takes tensors that are not in memory and returns one that is not either: reading rows of a view reads the rows behind
them, and no read holds more than a small multiple of what it returns. Nothing is cached; a view of a view is fine.
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

_Read = Callable[[int, int], NDArray[Any]]


def _by_rows(sources: Sequence[Tensor], view: Callable[[Sequence[_Read]], _Read]) -> Callable[[int, int], FloatArray]:
    """-> a `Tensor.read` that gives rows of these tensors, whole rows and no other; `view` makes it of their readers.
    Where all of them are the same as rows of one GGML format, so is what is read."""
    readers = [source.read for source in sources]
    same = [reader for reader in readers if isinstance(reader, SameRows)]
    if len(same) < len(readers):
        return view(readers)

    def format() -> str | None:
        formats = {reader.format() for reader in same}
        return formats.pop() if len(formats) == 1 else None

    return SameRows(view([reader.read for reader in same]), format, view([reader.blocks for reader in same]))


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

    return replace(tensor, read=_by_rows([tensor], lambda reads: partial(_reordered_rows, reads[0], order)))


def _reordered_rows(read: _Read, order: NDArray[np.intp], start: int, stop: int) -> NDArray[Any]:
    wanted = order[start:stop]
    places = np.argsort(wanted)
    pieces = []
    for first, last in _runs(wanted[places]):
        source = int(wanted[places[first]])
        pieces.append(read(source, source + last - first))
    ascending = np.concatenate(pieces) if pieces else read(0, 0)
    rows = np.empty_like(ascending)
    rows[places] = ascending
    return rows


def _runs(ascending: NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """-> (first, last) ranges of positions over which the numbers go up by exactly one"""
    breaks = np.flatnonzero(np.diff(ascending) != 1) + 1
    edges = [0, *breaks.tolist(), len(ascending)]
    return ((first, last) for first, last in pairwise(edges) if first < last)


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Equal shapes (...) one behind the other: (len(tensors), ...). Named as the first; one source dtype for all, that
    of the first."""
    first = tensors[0]
    read = _by_rows(tensors, lambda reads: partial(_stacked_rows, reads, first.rows))
    return replace(first, shape=(len(tensors), *first.shape), read=read)


def _stacked_rows(reads: Sequence[_Read], rows_each: int, start: int, stop: int) -> NDArray[Any]:
    pieces = []
    position = start
    while position < stop:
        index, offset = divmod(position, rows_each)
        count = min(stop - position, rows_each - offset)
        pieces.append(reads[index](offset, offset + count))
        position += count
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces) if pieces else reads[0](0, 0)


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
    read passes over a whole matrix once, in stripes no larger than what it returns: read in large chunks, or the passes
    add up. What is transposed twice is the tensor itself again, and costs nothing."""
    if isinstance(tensor.read, _Transposed):
        return replace(tensor.read.behind, name=tensor.name, role=tensor.role)
    *lead, height, width = tensor.shape
    return replace(tensor, shape=(*lead, width, height), read=_Transposed(tensor))
