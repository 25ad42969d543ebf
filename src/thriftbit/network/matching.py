"""Finds transformers' parameters in a GGUF by content, for any family and without a table of names.

The problem: a converter joins, splits, stacks and reorders matrices, each family in its own way. The way back is needed
to compute with a quantized file, and to know the inputs of a tensor. The choice: in full precision, a row of a matrix
in the GGUF is a row of some parameter, whatever was done to the matrix as a whole. So rows are matched by hashes. Three
kinds of matrices need more: experts that transformers holds transposed (their columns are the rows), latent attention,
of which llama.cpp stores one half transposed (its rows are columns), and matrices with reordered columns (the rows have
the same values in another order). Vectors, and parameters that are in no matrix, are taken from the checkpoint, because
a GGUF keeps them in full precision.

Both models are read once, in pieces. A few numbers are kept for each row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thriftbit.sources.tensor import FloatArray, Tensor

CHUNK_BYTES = 8 << 20
_LONGEST_ROW = 1 << 20
_MULTIPLIERS = np.random.default_rng(0x7B17).integers(1, 1 << 63, _LONGEST_ROW, dtype=np.uint64) | np.uint64(1)

Hashes = NDArray[np.uint64]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Origin:
    """Where one parameter is in the container. A line is a row or a column.

    tensor, line: for each line of the parameter, the number of the container's tensor and of the line in it. across:
    whether the container's lines are columns, its matrices being stacked. turned: whether the parameter's lines are its
    columns. columns: for each entry of a line, its place in the container's line; None if the order is the same."""

    tensor: Numbers
    line: Numbers
    across: NDArray[np.bool_]
    turned: bool = False
    columns: Numbers | None = None

    @property
    def is_plain(self) -> bool:
        return not (self.turned or self.across.any()) and self.columns is None


def find_origins(
    tensors: Sequence[Tensor],
    parameters: Iterable[tuple[str, Callable[[], FloatArray]]],
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, Origin]:
    """Return the origin of each parameter that was found completely.

    tensors: of the container. parameters: names with functions that read them, float32 of at least two axes. progress:
    is told the fraction that is done."""
    index = _Index(tensors)
    index.add_rows(lambda share: progress(0.5 * share))
    origins: dict[str, Origin] = {}
    left: list[tuple[str, Callable[[], FloatArray]]] = []
    every = list(parameters)
    for number, (name, read) in enumerate(every):
        origin = index.find(read())
        if origin is not None:
            origins[name] = origin
        else:
            left.append((name, read))
        progress(0.5 + 0.4 * (number + 1) / len(every))
    if left:
        used = np.unique(np.concatenate([np.empty(0, np.int64), *(origin.tensor for origin in origins.values())]))
        index.add_others(sorted(set(range(len(tensors))) - set(used.tolist())))
        for name, read in left:
            if (origin := index.find_otherwise(read())) is not None:
                origins[name] = origin
    progress(1.0)
    return origins


class _Index:
    """The lines of the container's tensors, by hashes."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors
        self._rows, self._columns, self._sets = _Table(), _Table(), _Table()

    def add_rows(self, progress: Callable[[float], None]) -> None:
        matrices = [number for number, tensor in enumerate(self._tensors) if is_matrix(tensor)]
        for done, number in enumerate(matrices):
            tensor = self._tensors[number]
            hashes = np.concatenate([hashes_of(tensor.load(*piece)) for piece in tensor.chunks(CHUNK_BYTES)])
            self._rows.add(tensor.width, number, hashes)
            progress((done + 1) / len(matrices))
        self._rows.finish()

    def add_others(self, numbers: Sequence[int]) -> None:
        """Add columns and sorted rows of the tensors of which no row was found. numbers: of these tensors."""
        for number in numbers:
            tensor = self._tensors[number]
            if not is_matrix(tensor):
                continue
            columns = []
            for first in range(0, tensor.rows, tensor.matrix_rows):
                matrix = tensor.load(first, first + tensor.matrix_rows)
                columns.append(hashes_of(np.ascontiguousarray(matrix.T)))
                self._sets.add(tensor.width, number, _hashes_of_sets(matrix), first)
            self._columns.add(tensor.matrix_rows, number, np.concatenate(columns))
        self._columns.finish()
        self._sets.finish()

    def find(self, values: FloatArray) -> Origin | None:
        """Return where the parameter is, if its rows or its columns are rows of the container; else None."""
        for turned in (False, True) if values.ndim == 3 else (False,):
            lines = _lines(values, turned)
            found = self._rows.find(lines.shape[1], hashes_of(lines))
            if found is not None and found.is_whole:
                return Origin(found.tensor, found.line, np.zeros(len(lines), np.bool_), turned)
        return None

    def find_otherwise(self, values: FloatArray) -> Origin | None:
        """Return where the parameter is, if its rows are columns of the container, or rows in another order; else
        None."""
        for turned in (False, True) if values.ndim == 3 else (False,):
            lines = _lines(values, turned)
            hashes = hashes_of(lines)
            rows, columns = (table.find(lines.shape[1], hashes) for table in (self._rows, self._columns))
            if rows is not None and columns is not None and (rows.there | columns.there).all():
                across = ~rows.there
                tensor, line = (
                    np.where(across, c, r) for c, r in ((columns.tensor, rows.tensor), (columns.line, rows.line))
                )
                return Origin(tensor, line, across, turned)
            sets = self._sets.find(lines.shape[1], _hashes_of_sets(lines))
            if sets is not None and sets.is_whole:
                order = self._order_of_columns(lines, sets)
                if order is not None:
                    return Origin(sets.tensor, sets.line, np.zeros(len(lines), np.bool_), turned, order)
        return None

    def _order_of_columns(self, lines: FloatArray, found: _Found) -> Numbers | None:
        """Return for each column its place in the container's lines; None if the place differs between lines."""
        stored = np.concatenate(
            [self._tensors[t].load(n, n + 1) for t, n in zip(found.tensor, found.line, strict=True)]
        )
        by_hash = {int(each): number for number, each in enumerate(hashes_of(np.ascontiguousarray(stored.T)))}
        wanted = [by_hash.get(int(each), -1) for each in hashes_of(np.ascontiguousarray(lines.T))]
        order = np.array(wanted, np.int64)
        return order if (np.sort(order) == np.arange(lines.shape[1])).all() else None


@dataclass(frozen=True)
class _Found:
    """For each line that was searched: whether it was found, in which tensor, and as which line of it."""

    there: NDArray[np.bool_]
    tensor: Numbers
    line: Numbers

    @property
    def is_whole(self) -> bool:
        return bool(self.there.all())


class _Table:
    """Lines by their length and hash."""

    def __init__(self) -> None:
        self._added: dict[int, list[tuple[int, int, Hashes]]] = {}
        self._sorted: dict[int, tuple[Hashes, Numbers, Numbers]] = {}

    def add(self, width: int, tensor: int, hashes: Hashes, first: int = 0) -> None:
        """Add lines of a tensor by their hashes. first: the number of the first line."""
        self._added.setdefault(width, []).append((tensor, first, hashes))

    def finish(self) -> None:
        for width, parts in self._added.items():
            hashes = np.concatenate([part for _, _, part in parts])
            tensors = np.concatenate([np.full(len(part), tensor) for tensor, _, part in parts])
            lines = np.concatenate([first + np.arange(len(part)) for _, first, part in parts])
            order = np.argsort(hashes, kind="stable")
            self._sorted[width] = (hashes[order], tensors[order], lines[order])
        self._added.clear()

    def find(self, width: int, wanted: Hashes) -> _Found | None:
        """Return where the wanted lines are; None if there are no lines of that length."""
        if width not in self._sorted:
            return None
        hashes, tensors, lines = self._sorted[width]
        first = np.searchsorted(hashes, wanted, "left")
        past = np.searchsorted(hashes, wanted, "right")
        place = np.minimum(first, len(hashes) - 1)
        found = _Found(past > first, tensors[place], lines[place])
        repeated = np.flatnonzero(past - first > 1)
        if len(repeated):
            _choose_among_equals(found, repeated, wanted, first, past, tensors, lines)
        return found


def _choose_among_equals(
    found: _Found, repeated: Numbers, wanted: Hashes, first: Numbers, past: Numbers, tensors: Numbers, lines: Numbers
) -> None:
    """Assign equal lines, for example of zeros, which are in several places. Only tensors with other lines of the
    parameter count. The first wanted line gets the first place in them, and so on."""
    unique = np.setdiff1d(np.flatnonzero(found.there), repeated)
    likely = np.unique(found.tensor[unique])
    taken: dict[int, int] = {}
    for number in repeated.tolist():
        candidates = np.arange(first[number], past[number])
        near = candidates[np.isin(tensors[candidates], likely)]
        candidates = near if len(near) else candidates
        turn = taken.get(int(wanted[number]), 0)
        taken[int(wanted[number])] = turn + 1
        chosen = candidates[turn % len(candidates)]
        found.tensor[number], found.line[number] = tensors[chosen], lines[chosen]


def hashes_of(lines: FloatArray) -> Hashes:
    """Return uint64 (n,): a multilinear hash of each line's bits, modulo 2^64. lines: float32 (n, width)."""
    hashes = np.empty(len(lines), np.uint64)
    for rows in _pieces(lines):
        hashes[rows] = _bits(lines[rows]) @ _MULTIPLIERS[: lines.shape[1]]
    return hashes


def _hashes_of_sets(lines: FloatArray) -> Hashes:
    """Return a hash of each line that does not depend on the order of the line's values."""
    hashes = np.empty(len(lines), np.uint64)
    for rows in _pieces(lines):
        mixed = _bits(lines[rows])
        for shift, factor in ((15, 0x9E3779B97F4A7C15), (29, 0xBF58476D1CE4E5B9), (32, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        hashes[rows] = mixed.sum(axis=1, dtype=np.uint64)
    return hashes


def _bits(lines: FloatArray) -> Hashes:
    """Return the bits of each value. A zero has no sign here, because converters lose it."""
    return (np.ascontiguousarray(lines, np.float32) + np.float32(0)).view(np.uint32).astype(np.uint64)


def _pieces(lines: FloatArray) -> Iterator[slice]:
    step = max(1, CHUNK_BYTES // (4 * max(1, lines.shape[1])))
    return (slice(first, first + step) for first in range(0, len(lines), step))


def _lines(values: FloatArray, turned: bool) -> FloatArray:
    """Return (lines, entries): the rows of all matrices one after the other, or if `turned`, their columns."""
    if turned:
        values = values.swapaxes(-1, -2)
    return np.ascontiguousarray(values).reshape(-1, values.shape[-1])


def is_matrix(tensor: Tensor) -> bool:
    """Return whether the tensor is a matrix with rows that can be told apart."""
    return len(tensor.shape) > 1 and 1 < tensor.width <= _LONGEST_ROW
