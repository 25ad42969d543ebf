"""The compiled loops of rounding against the same written plainly, on every instruction set that the machine has."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from thriftbit.formats.format import ByteArray, FloatArray, _native
from thriftbit.formats.iq4_nl import VALUES

assert _native is not None, "the kernels are not compiled; install the package again"

N, WIDTH = 37, 24
TABLES = {"whole": np.arange(-8, 8, dtype=np.float32), "uneven": VALUES}


@pytest.fixture(params=_native.instruction_sets(), autouse=True)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[None]:
    assert _native is not None
    _native.use_instruction_set(request.param)
    yield
    _native.use_instruction_set(_native.instruction_sets()[-1])


def _definite(size: int, seed: int) -> FloatArray:
    values = np.random.default_rng(seed).standard_normal((3 * size, size))
    values[:, 0] *= 3
    return np.asarray(values.T @ values / len(values), np.float32)


def _unit_lower(size: int, seed: int) -> FloatArray:
    lower = np.linalg.cholesky(_definite(size, seed).astype(np.float64))
    return np.asarray(lower / lower.diagonal(), np.float32)


def _matrix(table: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return weights, scales, offsets; a block of zeros among them."""
    random = np.random.default_rng(7)
    weights = random.standard_normal((WIDTH, N)).astype(np.float32)
    scales = (random.uniform(1.5, 3, (WIDTH, N)) / np.abs(table).max()).astype(np.float32)
    offsets = random.normal(0, 0.1, (WIDTH, N)).astype(np.float32)
    scales[:, 5] = offsets[:, 5] = 0
    return weights, scales, offsets


def _nearest(wanted: float, scale: float, offset: float, table: FloatArray) -> int:
    return int(np.argmin(np.abs(scale * table + offset - wanted)))


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
@pytest.mark.parametrize("with_rows", [False, True])
def test_feedback(table: FloatArray, with_rows: bool) -> None:
    assert _native is not None
    weights, scales, offsets = _matrix(table)
    columns, rows = _unit_lower(WIDTH, 1), _unit_lower(N, 2) if with_rows else None
    carried = np.random.default_rng(3).normal(0, 0.2, (WIDTH, N)).astype(np.float32)
    codes, errors = np.zeros((WIDTH, N), np.uint8), np.zeros((WIDTH, N), np.float32)
    _native.feed_back(weights, carried, columns, rows, scales, offsets, table, codes, errors)
    np.testing.assert_allclose(errors, weights - (scales * table[codes] + offsets), atol=1e-6)
    by_row = np.eye(N) if rows is None else rows
    propagated = errors.T @ columns + carried.T  # what each choice should have brought near zero, rows aside
    wanted = by_row.T @ propagated - errors.T + weights.T
    for j in range(WIDTH):
        for i in range(N):
            if scales[j, i] > 0:
                chosen = scales[j, i] * table[codes[j, i]] + offsets[j, i]
                best = scales[j, i] * table[_nearest(wanted[i, j], scales[j, i], offsets[j, i], table)] + offsets[j, i]
                assert abs(chosen - wanted[i, j]) <= abs(best - wanted[i, j]) + 1e-4


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
@pytest.mark.parametrize("with_rows", [False, True])
def test_descent_ends_where_no_single_code_can_do_better(table: FloatArray, with_rows: bool) -> None:
    assert _native is not None
    weights, scales, offsets = _matrix(table)
    columns, rows = _definite(WIDTH, 1), _definite(N, 2) if with_rows else None
    by_row = np.eye(N, dtype=np.float32) if rows is None else rows
    codes = np.random.default_rng(4).integers(0, len(table), (WIDTH, N)).astype(np.uint8)
    errors = weights - (scales * table[codes] + offsets)
    cost = _cost(errors, columns, by_row)
    for _ in range(50):
        moved = _native.descend(columns @ errors @ by_row, columns, rows, scales, offsets, table, codes, errors)
        np.testing.assert_allclose(errors, weights - (scales * table[codes] + offsets), atol=1e-5)
        now = _cost(errors, columns, by_row)
        assert now <= cost * (1 + 1e-5)
        cost = now
        if moved == 0:
            break
    assert moved == 0
    gradient = columns @ errors @ by_row
    for j, i in ((0, 0), (3, 4), (11, 20), (WIDTH - 1, N - 1)):
        steps = scales[j, i] * (table - table[codes[j, i]])
        gains = steps * steps * columns[j, j] * by_row[i, i] - 2 * steps * gradient[j, i]
        assert gains.min() >= -1e-3


def _cost(errors: FloatArray, columns: FloatArray, rows: FloatArray) -> float:
    return float(np.sum(columns @ errors * (errors @ rows), dtype=np.float64))


def test_arrays_that_do_not_fit_are_refused() -> None:
    assert _native is not None
    weights, scales, offsets = _matrix(VALUES)
    codes: ByteArray = np.full((WIDTH, N), 200, np.uint8)
    columns = _definite(WIDTH, 1)
    with pytest.raises(ValueError, match="code without a value"):
        _native.descend(weights.copy(), columns, None, scales, offsets, VALUES, codes, weights.copy())
    with pytest.raises(ValueError, match="shapes"):
        _native.descend(weights.copy(), columns[1:], None, scales, offsets, VALUES, codes, weights.copy())
