"""Rounding a whole matrix in codebook formats, on small formats made here: one for every kind of signs and shifts."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest

from thriftbit.formats.format import ByteArray, FloatArray, Format
from thriftbit.formats.vector_grid import Signs, VectorGrid, VectorNumbers
from thriftbit.quantization import vector_rounding
from thriftbit.quantization.curvature import Curvature
from thriftbit.quantization.rounding import round_matrix
from thriftbit.quantization.vector_rounding import VectorState

ROWS, WIDTH, BLOCK, SUB_BLOCKS = 24, 128, 64, 4
SCALES = np.arange(1, 16, 2, dtype=np.float32) / 8
SHIFTS = np.array([-0.125, 0.125], np.float32)


def _format(name: str, group: int, entries: int, signs: Signs, shift_blocks: int = 0) -> Format:
    """Stores numbers as they are, one byte or two for each"""
    random = np.random.default_rng(group)
    values = [-1, 0, 1] if signs == Signs.NONE else [1, 3, 5]
    vectors = random.choice(np.array(values, np.float32), (entries, group))
    groups = BLOCK // group
    sizes = np.cumsum([4, SUB_BLOCKS, 2 * groups, BLOCK, shift_blocks])

    def pack(numbers: VectorNumbers) -> ByteArray:
        d = numbers.d.astype("<f4").view(np.uint8)
        vectors = np.ascontiguousarray(numbers.vectors.astype("<u2")).view(np.uint8)
        return np.hstack([d, numbers.scales, vectors, numbers.signs.astype(np.uint8), numbers.shifts])

    def unpack(blocks: ByteArray) -> VectorNumbers:
        d, scales, vectors, signs, shifts, _ = np.split(blocks, sizes, axis=1)
        d, vectors = (np.ascontiguousarray(part).view(kind) for part, kind in ((d, "<f4"), (vectors, "<u2")))
        return VectorNumbers(d, scales, vectors, signs.astype(np.bool_), shifts)

    shifts = SHIFTS if shift_blocks else np.zeros(0, np.float32)
    grid = VectorGrid(vectors, SCALES, signs, SUB_BLOCKS, unpack, pack, shift_blocks, shifts)
    return Format(name, BLOCK, int(sizes[-1]), lambda blocks: grid.decode(unpack(blocks)), grid=grid)


FORMATS = {
    "even": _format("even", 8, 24, Signs.EVEN),
    "even in halves": _format("even in halves", 4, 16, Signs.EVEN),
    "free": _format("free", 8, 32, Signs.FREE),
    "free in halves": _format("free in halves", 4, 20, Signs.FREE),
    "shifts of units": _format("shifts of units", 8, 48, Signs.NONE, BLOCK // 8),
    "shifts of sub-blocks": _format("shifts of sub-blocks", 8, 48, Signs.NONE, SUB_BLOCKS),
}


def _moment(size: int, seed: int) -> FloatArray:
    random = np.random.default_rng(seed)
    values = random.standard_normal((3 * size, size)) @ random.standard_normal((size, size)) / np.sqrt(size)
    values += random.standard_normal((3 * size, 6)) @ random.standard_normal((6, size))
    return np.asarray(values.T @ values / len(values), np.float32)


def _weights() -> FloatArray:
    return np.random.default_rng(1).standard_t(5, (ROWS, WIDTH)).astype(np.float32)


def _patterns(format: Format) -> FloatArray:
    """Return (choices, 8): all that a unit can be, without its scale."""
    grid = format.grid
    assert isinstance(grid, VectorGrid)
    parts = np.stack([np.concatenate(chosen) for chosen in product(grid.vectors, repeat=8 // grid.group)])
    if grid.signs == Signs.NONE:
        return np.concatenate([parts + shift for shift in SHIFTS])
    signs = np.array(list(product([1, -1], repeat=8)), np.float32)
    if grid.signs == Signs.EVEN:
        signs = signs[signs.prod(axis=1) > 0]
    return (parts[:, None] * signs).reshape(-1, 8)


def _plain(format: Format, weights: FloatArray) -> ByteArray:
    """Return blocks with one scale for all, and in every unit the first vector: where rounding begins."""
    grid, blocks = format.grid, weights.size // BLOCK
    assert isinstance(grid, VectorGrid)
    numbers = VectorNumbers(
        np.full((blocks, 1), 0.5, np.float32),
        np.full((blocks, SUB_BLOCKS), 3, np.uint8),
        np.zeros((blocks, BLOCK // grid.group), np.uint16),
        np.zeros((blocks, BLOCK), np.bool_),
        np.zeros((blocks, grid.shift_blocks), np.uint8),
    )
    return grid.pack(numbers).reshape(len(weights), -1)


def _cost(format: Format, weights: FloatArray, curvature: Curvature, blocks: ByteArray) -> float:
    return curvature.cost(weights - format.decode(blocks))


@pytest.mark.parametrize("name", FORMATS)
def test_bytes_survive(name: str) -> None:
    format, weights = FORMATS[name], _weights()
    blocks = round_matrix(weights, format, Curvature(_moment(WIDTH, 2)), _plain(format, weights))
    state = VectorState.of(weights, format, Curvature(_moment(WIDTH, 2)), blocks)
    np.testing.assert_array_equal(state.blocks(), blocks)


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_stored_is_what_the_signs_allow(name: str) -> None:
    format, weights = FORMATS[name], _weights()
    blocks = round_matrix(weights, format, Curvature(_moment(WIDTH, 2)), _plain(format, weights))
    grid = format.grid
    assert isinstance(grid, VectorGrid)
    minus = grid.unpack(blocks.reshape(-1, format.block_bytes)).signs.reshape(-1, 8).sum(axis=1)
    assert not minus.any() if grid.signs == Signs.NONE else minus.any()
    assert grid.signs != Signs.EVEN or not (minus % 2).any()


@pytest.mark.parametrize("name", FORMATS)
def test_a_unit_alone_is_nearly_the_best_of_all(name: str) -> None:
    """Against a search of all vectors with all signs, in a metric whose eight weights are correlated"""
    format, weights = FORMATS[name], _weights()
    metric = np.zeros((WIDTH, WIDTH), np.float32)
    for start in range(0, WIDTH, 8):
        metric[start : start + 8, start : start + 8] = _moment(8, start) + 8 * np.eye(8)
    state = VectorState.of(weights, format, Curvature(metric), _plain(format, weights))
    state.feed_back()
    errors = (weights - format.decode(state.blocks())).reshape(ROWS, -1, 8)
    patterns = _patterns(format)
    if name == "shifts of sub-blocks":  # they are not chosen here
        patterns = patterns[: len(patterns) // 2]
    found, best = np.zeros((ROWS, WIDTH // 8)), np.zeros((ROWS, WIDTH // 8))
    for unit in range(WIDTH // 8):
        block = metric[8 * unit : 8 * unit + 8, 8 * unit : 8 * unit + 8].astype(np.float64)
        half = np.linalg.cholesky(block)
        wanted, reached = weights[:, 8 * unit : 8 * unit + 8] @ half, 0.5 * SCALES[3] * patterns @ half
        best[:, unit] = np.square(wanted[:, None] - reached).sum(axis=2).min(axis=1)
        found[:, unit] = np.square(errors[:, unit] @ half).sum(axis=1)
    assert (found >= best * (1 - 1e-4)).all()
    assert np.mean(found <= best * (1 + 1e-4)) > 0.8
    assert found.sum() < 1.03 * best.sum()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("with_rows", [False, True])
def test_further_turns_never_cost_more(name: str, with_rows: bool) -> None:
    format, weights = FORMATS[name], _weights()
    curvature = Curvature(_moment(WIDTH, 2), _moment(ROWS, 3) if with_rows else None).damped()
    state = VectorState.of(weights, format, curvature, _plain(format, weights))
    state.feed_back()
    costs = [_cost(format, weights, curvature, state.blocks())]
    for _ in range(3):
        state.fit_steps()
        costs.append(_cost(format, weights, curvature, state.blocks()))
        state.choose_scales()
        costs.append(_cost(format, weights, curvature, state.blocks()))
        state.descend()
        costs.append(_cost(format, weights, curvature, state.blocks()))
    assert all(after <= before * (1 + 1e-5) for before, after in pairwise(costs))
    assert costs[-1] < 0.95 * costs[0]


@pytest.mark.parametrize("name", FORMATS)
def test_feeding_errors_back_pays(name: str) -> None:
    """Against the same search, of every unit alone"""
    format, weights = FORMATS[name], _weights()
    curvature = Curvature(_moment(WIDTH, 2), _moment(ROWS, 3)).damped()
    alone = Curvature(np.diag(curvature.columns.diagonal()))
    costs = []
    for known in (curvature, alone):
        state = VectorState.of(weights, format, known, _plain(format, weights))
        state.feed_back()
        costs.append(_cost(format, weights, curvature, state.blocks()))
    assert costs[0] < 0.8 * costs[1]


@pytest.mark.parametrize("name", ["even", "free in halves", "shifts of sub-blocks"])
def test_blocks_of_zeros_and_dead_columns_do_no_harm(name: str) -> None:
    format, weights = FORMATS[name], _weights()
    grid = format.grid
    assert isinstance(grid, VectorGrid)
    weights[3, :BLOCK] = 0
    numbers = grid.unpack(_plain(format, weights).reshape(-1, format.block_bytes))
    d = numbers.d.copy()
    d[3 * WIDTH // BLOCK] = 0
    one = np.random.default_rng(4).standard_normal((1, WIDTH)).astype(np.float32)
    one[:, 40:80] = 0
    curvature = Curvature(one.T @ one, np.zeros((ROWS, ROWS), np.float32))
    blocks = grid.pack(replace(numbers, d=d)).reshape(ROWS, -1)
    decoded = format.decode(round_matrix(weights, format, curvature, blocks))
    assert np.isfinite(decoded).all()
    assert not decoded[3, :BLOCK].any()


def test_the_same_twice() -> None:
    format, weights = FORMATS["even"], _weights()
    curvature = Curvature(_moment(WIDTH, 2), _moment(ROWS, 3))
    first, second = (round_matrix(weights, format, curvature, _plain(format, weights)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_of_a_large_codebook_the_entries_near_what_is_wanted_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    format, weights = _format("large", 8, 1200, Signs.FREE), _weights()
    curvature = Curvature(_moment(WIDTH, 2), _moment(ROWS, 3)).damped()
    costs = []
    for many in (vector_rounding.MANY, 10**6):
        monkeypatch.setattr(vector_rounding, "MANY", many)
        vector_rounding._neighbours.cache_clear()
        blocks = round_matrix(weights, format, curvature, _plain(format, weights))
        costs.append(_cost(format, weights, curvature, blocks))
    vector_rounding._neighbours.cache_clear()
    assert costs[0] != costs[1]
    assert costs[0] < 1.02 * costs[1]
