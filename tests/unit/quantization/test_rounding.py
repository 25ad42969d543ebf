"""Rounding a whole matrix: it costs less than fitting blocks alone, in every format, and bad data does no harm."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from thriftbit.errors import ThriftbitError
from thriftbit.formats import FORMATS
from thriftbit.formats.format import FloatArray
from thriftbit.formats.grid import Grid
from thriftbit.formats.packing import half
from thriftbit.quantization import curvature as curvatures
from thriftbit.quantization.curvature import Curvature
from thriftbit.quantization.rounding import round_matrix
from thriftbit.quantization.scalar_rounding import ScalarState

GRIDS = {name: format.grid for name, format in FORMATS.items() if isinstance(format.grid, Grid)}
ROWS, WIDTH = 48, 512


def _moment(size: int, seed: int) -> FloatArray:
    """Of correlated values, some columns much larger than others, as activations are"""
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((size, size)) * np.exp(random.standard_normal(size))
    values = random.standard_normal((2 * size, 24)) @ random.standard_normal((24, size)) * 2
    values += random.standard_normal((2 * size, size)) @ mixing / np.sqrt(size)
    return np.asarray(values.T @ values / len(values), np.float32)


def _weights() -> FloatArray:
    return np.random.default_rng(1).standard_t(5, (ROWS, WIDTH)).astype(np.float32) * np.float32(0.02)


@pytest.mark.parametrize("name", [name for name in GRIDS if name != "Q8_0"])
@pytest.mark.parametrize("with_rows", [False, True])
def test_it_costs_less(name: str, with_rows: bool) -> None:
    weights, format = _weights(), FORMATS[name]
    curvature = Curvature(_moment(WIDTH, 2), _moment(ROWS, 3) if with_rows else None)
    plain = format.encode(weights, curvature.columns.diagonal().copy())
    rounded = round_matrix(weights, format, curvature, plain)
    before, after = (curvature.cost(weights - format.decode(blocks)) for blocks in (plain, rounded))
    assert after < 0.75 * before


def test_rows_that_belong_together_are_used() -> None:
    weights, format = _weights(), FORMATS["Q4_0"]
    both = Curvature(_moment(WIDTH, 2), _moment(ROWS, 3))
    plain = format.encode(weights, both.columns.diagonal().copy())
    alone = round_matrix(weights, format, Curvature(both.columns), plain)
    together = round_matrix(weights, format, both, plain)
    assert both.cost(weights - format.decode(together)) < 0.9 * both.cost(weights - format.decode(alone))


@pytest.mark.parametrize("name", ["Q4_K", "Q3_K", "Q4_0"])
@pytest.mark.parametrize("with_rows", [False, True])
def test_further_turns_never_cost_more(name: str, with_rows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curvatures, "STRETCH", 128)  # so that a stretch has others around it
    weights, format = _weights(), FORMATS[name]
    curvature = Curvature(_moment(WIDTH, 2), _moment(ROWS, 3) if with_rows else None)
    blocks = format.encode(weights)
    costs = [
        curvature.damped().cost(weights - format.decode(round_matrix(weights, format, curvature, blocks, turns=turns)))
        for turns in range(5)
    ]
    assert all(after <= before * (1 + 1e-5) for before, after in pairwise(costs))
    assert costs[-1] < 0.95 * costs[0]


@pytest.mark.parametrize("name", ["Q3_K", "Q2_K", "Q4_K", "IQ4_XS"])
@pytest.mark.parametrize("with_rows", [False, True])
def test_steps_of_super_blocks_are_fitted(name: str, with_rows: bool) -> None:
    """Where d and d_min are wrong and nothing else is, they are found again"""
    format, curvature = FORMATS[name], Curvature(_moment(WIDTH, 2), _moment(ROWS, 3) if with_rows else None).damped()
    grid = GRIDS[name]
    right = grid.unpack(format.encode(_weights()).reshape(-1, format.block_bytes))
    weights = grid.decode(right).reshape(ROWS, WIDTH)
    wrong = replace(right, d=half(right.d * np.float32(1.25)), d_min=half(right.d_min * np.float32(0.75)))
    state = ScalarState.of(weights, format, curvature, grid.pack(wrong).reshape(ROWS, -1))
    costs = []
    for _ in range(4):  # with rows, a row's best step depends on the other rows'
        costs.append(curvature.cost(weights - format.decode(state.blocks())))
        state.fit_steps()
    assert all(after <= before for before, after in pairwise(costs))
    assert costs[-1] < 0.1 * costs[0]


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q3_K", "Q2_K"])
def test_singular_curvature_dead_columns_and_rows_of_zeros(name: str) -> None:
    weights, format = _weights(), FORMATS[name]
    weights[3] = 0
    weights[:, 64:96] = 0
    one = np.random.default_rng(4).standard_normal((1, WIDTH)).astype(np.float32)
    one[:, 100:140] = 0
    curvature = Curvature(one.T @ one, np.zeros((ROWS, ROWS), np.float32))
    decoded = format.decode(round_matrix(weights, format, curvature, format.encode(weights)))
    assert np.isfinite(decoded).all()
    assert np.abs(decoded).max() < 2 * np.abs(weights).max()


def test_values_that_are_not_finite_are_refused() -> None:
    weights, format = _weights(), FORMATS["Q4_0"]
    columns = _moment(WIDTH, 2)
    columns[7, 9] = np.nan
    with pytest.raises(ThriftbitError, match="not finite"):
        round_matrix(weights, format, Curvature(columns), format.encode(weights))


def test_a_format_without_choices_is_refused() -> None:
    weights = _weights()
    with pytest.raises(ThriftbitError, match="F16"):
        round_matrix(
            weights, FORMATS["F16"], Curvature(np.eye(WIDTH, dtype=np.float32)), FORMATS["F16"].encode(weights)
        )


def test_a_large_matrix_is_factored_in_pieces_as_a_small_one_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, format = _weights(), FORMATS["Q4_0"]
    curvature, blocks = Curvature(_moment(WIDTH, 2)), format.encode(weights)
    whole = round_matrix(weights, format, curvature, blocks)
    monkeypatch.setattr(curvatures, "LARGE", 100)
    assert np.mean(whole == round_matrix(weights, format, curvature, blocks)) > 0.99


def test_where_float32_does_not_do_a_large_matrix_is_factored_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    nearly_singular = np.ones((WIDTH, WIDTH), np.float32) + np.eye(WIDTH, dtype=np.float32) * np.float32(1e-6)
    whole = curvatures.factored(nearly_singular)
    monkeypatch.setattr(curvatures, "LARGE", 100)
    with pytest.raises(np.linalg.LinAlgError):
        curvatures._large_cholesky(nearly_singular)
    for one, other in zip(whole, curvatures.factored(nearly_singular), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_same_twice() -> None:
    weights, format = _weights(), FORMATS["Q5_K"]
    curvature = Curvature(_moment(WIDTH, 2), _moment(ROWS, 3))
    blocks = format.encode(weights)
    first, second = (round_matrix(weights, format, curvature, blocks) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("with_rows", [True, False])
def test_gradients_know_of_what_moved_since_they_were_begun(with_rows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curvatures, "STRETCH", 96)
    random = np.random.default_rng(2)
    weights = random.standard_normal((8, 224), dtype=np.float32)
    columns, rows = (part.T @ part for part in (random.standard_normal((300, n), dtype=np.float32) for n in (224, 8)))
    curvature, format = Curvature(columns, rows if with_rows else None), FORMATS["Q4_0"]
    state = ScalarState.of(weights, format, curvature, format.encode(weights))
    errors, seen = random.standard_normal((224, 8), dtype=np.float32), 0
    for piece, gradient in state.curvature.gradients(errors, 32):
        direct = (columns @ errors @ (rows if with_rows else np.eye(8)))[piece]
        np.testing.assert_allclose(gradient, direct, rtol=1e-3, atol=1e-3 * np.abs(direct).max())
        errors[piece] += random.standard_normal((32, 8), dtype=np.float32)
        seen += 1
    assert seen == 7
