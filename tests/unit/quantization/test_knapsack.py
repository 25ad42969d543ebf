"""The choice within limits: never better than the bound, nearly always the best there is, and quick."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from thriftbit.quantization.knapsack import Floats, Limit, choose

BITS = np.array([2.6, 3.4, 4.25, 4.5, 5.5, 6.6, 8.5, 16])


def problem(items: int, seed: int) -> tuple[Floats, Floats, Floats]:
    """Return costs, bytes and seconds as tensors have them."""
    random = np.random.default_rng(seed)
    weights = random.choice([1e6, 4e6, 11e6, 2e5], items)
    uses = np.round(weights[:, None] * BITS / 8)
    costs = random.lognormal(0, 1.5, items)[:, None] * 4.0**-BITS * random.lognormal(0, 0.1, (items, len(BITS)))
    return costs, uses, uses / random.choice([1.0, 1.5, 2.0], len(BITS))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("limited", [1, 2])
def test_small_ones_against_every_choice_there_is(seed: int, limited: int) -> None:
    costs, uses, seconds = problem(5, seed)
    limits = [Limit(uses, 0.3 * uses[:, -1].sum()), Limit(seconds, 0.32 * seconds[:, -1].sum())][:limited]
    found = choose(costs, limits)
    rows = range(5)
    allowed = [
        costs[rows, picks].sum()
        for picks in itertools.product(range(len(BITS)), repeat=5)
        if all(limit.uses[rows, picks].sum() <= limit.most for limit in limits)
    ]
    assert found is not None
    assert found.bound <= min(allowed) * (1 + 1e-9)
    if limited == 1:
        assert found.value == pytest.approx(min(allowed)) and found.gap == 0
    assert found.value >= min(allowed) * (1 - 1e-9)
    assert all(limit.uses[rows, found.picks].sum() <= limit.most for limit in limits)
    assert found.value == pytest.approx(costs[rows, found.picks].sum())


def test_thousands_in_seconds_and_a_thousandth_from_the_best() -> None:
    costs, uses, seconds = problem(3000, 0)
    started = time.perf_counter()
    by_size = choose(costs, [Limit(uses, 0.28 * uses[:, -1].sum())])
    assert by_size is not None
    taken = seconds[np.arange(3000), by_size.picks].sum()
    by_both = choose(costs, [Limit(uses, 0.28 * uses[:, -1].sum()), Limit(seconds, 0.95 * taken)])
    assert time.perf_counter() - started < 20
    assert by_both is not None and by_both.value >= by_size.value
    assert by_size.gap < 1e-3 and by_both.gap < 1e-3


def test_what_cannot_be_kept() -> None:
    costs, uses, _ = problem(4, 0)
    smallest = uses.min(axis=1).sum()
    assert choose(costs, [Limit(uses, smallest - 1)]) is None
    found = choose(costs, [Limit(uses, smallest)])
    assert found is not None and (found.picks == 0).all()


def test_choices_that_an_item_does_not_have_are_not_taken() -> None:
    costs, uses, _ = problem(4, 0)
    costs[:, 1::2] = np.inf
    found = choose(costs, [Limit(uses, uses.max(axis=1).sum())])
    assert found is not None and (found.picks % 2 == 0).all()


def test_without_a_limit_every_item_has_its_cheapest() -> None:
    costs, _, _ = problem(4, 0)
    found = choose(costs, [])
    assert found is not None and (found.picks == costs.argmin(axis=1)).all() and found.gap == 0


@pytest.mark.parametrize("cost", [0.0, 1.0])
def test_equal_costs_are_no_obstacle(cost: float) -> None:
    uses = np.array([[10.0, 5.0], [10.0, 5.0]])
    found = choose(np.full((2, 2), cost), [Limit(uses, 12.0)])
    assert found is not None and found.value == 2 * cost
    assert uses[range(2), found.picks].sum() <= 12
