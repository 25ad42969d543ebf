"""Every view, read by ranges of rows, is what numpy makes of the whole array."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thriftbit.sources.tensor import FloatArray, Tensor
from thriftbit.sources.views import computed, constant, part, reordered, stacked, transposed


class Stored:
    """A tensor in memory that remembers how much of it was read, and in what pieces."""

    def __init__(self, values: FloatArray) -> None:
        self.values = values
        self.rows_read: list[int] = []

    def tensor(self, name: str = "weights") -> Tensor:
        return Tensor(name, self.values.shape, "F32", self._read, "ffn-up")

    def _read(self, start: int, stop: int) -> FloatArray:
        rows = self.values.reshape(-1, self.values.shape[-1])
        assert 0 <= start <= stop <= len(rows)
        self.rows_read.append(stop - start)
        return rows[start:stop].copy()


def numbers(*shape: int) -> FloatArray:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


MATRIX = numbers(13, 7)
ORDER = np.random.default_rng(5).permutation(13)
VECTOR = numbers(13)
EXPERTS = numbers(4, 5, 3)

VIEWS: dict[str, tuple[Callable[[], Tensor], FloatArray]] = {
    "constant vector": (lambda: constant("c", VECTOR), VECTOR),
    "constant matrix": (lambda: constant("c", MATRIX), MATRIX),
    "computed": (lambda: computed(Stored(MATRIX).tensor(), lambda values: values + 1), MATRIX + np.float32(1)),
    "reordered matrix": (lambda: reordered(Stored(MATRIX).tensor(), ORDER), MATRIX[ORDER]),
    "reordered vector": (lambda: reordered(Stored(VECTOR).tensor(), ORDER), VECTOR[ORDER]),
    "stacked": (lambda: stacked([Stored(expert).tensor() for expert in EXPERTS]), EXPERTS),
    "part": (lambda: part(Stored(EXPERTS).tensor(), 2), EXPERTS[2]),
    "part of vectors": (lambda: part(Stored(MATRIX).tensor(), 6), MATRIX[6]),
    "transposed": (lambda: transposed(Stored(MATRIX).tensor()), MATRIX.T),
    "a view of a view": (
        lambda: computed(reordered(transposed(Stored(MATRIX.T).tensor()), ORDER), lambda values: values + 2),
        MATRIX[ORDER] + 2,
    ),
}


@pytest.mark.parametrize("name", VIEWS)
@given(data=st.data())
def test_any_range_of_rows_is_that_of_the_whole(name: str, data: st.DataObject) -> None:
    make, expected = VIEWS[name]
    view = make()
    assert view.shape == expected.shape
    rows = expected.reshape(-1, expected.shape[-1])
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    found = view.load(start, stop)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, rows[start:stop])


@pytest.mark.parametrize("name", VIEWS)
def test_what_is_read_may_be_written_to(name: str) -> None:
    make, expected = VIEWS[name]
    view = make()
    view.load()[:] = 0
    np.testing.assert_array_equal(view.load().reshape(expected.shape), expected)


def test_views_keep_name_role_and_dtype() -> None:
    for view in (computed(Stored(MATRIX).tensor(), lambda values: values + 1), transposed(Stored(MATRIX).tensor())):
        assert (view.name, view.role, view.source_dtype) == ("weights", "ffn-up", "F32")


def test_reordering_reads_only_what_was_asked_for_and_neighbours_together() -> None:
    stored = Stored(numbers(64, 4))
    halves_interleaved = np.arange(64).reshape(2, 2, 16).swapaxes(1, 2).ravel()
    view = reordered(stored.tensor(), halves_interleaved)
    view.load(0, 32)
    assert stored.rows_read == [32]
    stored.rows_read.clear()
    view.load(32, 40)
    assert stored.rows_read == [4, 4]


def test_stacking_reads_only_the_experts_asked_for() -> None:
    experts = [Stored(expert) for expert in EXPERTS]
    stacked([expert.tensor() for expert in experts]).load(6, 11)
    assert [expert.rows_read for expert in experts] == [[], [4], [1], []]


def test_transposing_reads_in_stripes_no_larger_than_what_it_returns() -> None:
    stored = Stored(numbers(1000, 50))
    transposed(stored.tensor()).load(10, 12)
    assert sum(stored.rows_read) == 1000
    assert max(stored.rows_read) * 50 <= 2 * 1000
