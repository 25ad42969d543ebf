"""Choose one option for each of many items, at the least cost within one or two limits: a multiple-choice knapsack.

The problem is hard in theory and easy here, with hundreds of items and none that fills the budget alone. The choice:
give each limit a price, take the cheapest option of every item at these prices, and search for the prices at which the
limits are just met (Lagrange relaxation, Everett 1963). This also gives a lower bound for every choice, so the answer
comes with its distance from the optimum. What is left of the budget is used up by single moves, and by pairs of moves
of which one makes room for the other. With one limit and few undecided items, the optimum is found
(`knapsack_exact.py`). Left out: the optimum with two limits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thriftbit.quantization.knapsack_exact import choose_exactly

Floats = NDArray[np.float64]
Picks = NDArray[np.int64]

BISECTIONS = 60  # of one price; each halves what is unknown of its logarithm
SECTIONS = 40  # of the second price, by the golden ratio
LOG_PRICES = (-46.0, 46.0)  # around the ratio of spans: e^±46 is twenty decades
MOVES_PAIRED = 400
ROUNDS = 200
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Limit:
    """uses: (items, choices), finite. most: the largest allowed sum over the chosen options."""

    uses: Floats
    most: float


@dataclass(frozen=True)
class Choice:
    """picks: the number of the chosen option for each item. value: the sum of their costs. bound: no choice within the
    limits costs less."""

    picks: Picks
    value: float
    bound: float

    @property
    def gap(self) -> float:
        """Return the largest possible distance from the optimum, as a share of the value."""
        return max(self.value - self.bound, 0.0) / self.value if self.value > 0 else 0.0


def choose(costs: Floats, limits: Sequence[Limit]) -> Choice | None:
    """costs: (items, choices), infinite for choices that an item does not have. limits: at most two. -> None if nothing
    keeps to the limits, or nothing was found that keeps to both"""
    search = _Search(costs, list(limits))
    if not limits:
        search.at(())
    elif len(limits) == 1:
        search.best_price(lambda price: (price,), 0)
    else:
        search.best_prices()
    if search.picks is None:
        return None
    search.improve()
    search.decide()
    return Choice(search.picks, search.value, search.bound)


class _Search:
    """The best found so far: picks, their value, and the prices at which the bound was greatest."""

    def __init__(self, costs: Floats, limits: list[Limit]) -> None:
        self.costs, self.limits = costs, limits
        self.rows = np.arange(len(costs))
        self.picks: Picks | None = None
        self.value, self.bound = math.inf, -math.inf
        self.prices: tuple[float, ...] = (0.0,) * len(limits)
        known = np.isfinite(costs)
        spans = [_span(np.where(known, limit.uses, np.nan)) for limit in limits]
        span_of_costs = _span(np.where(known, costs, np.nan)) or 1.0  # where all costs are equal, any price will do
        self.units = [span_of_costs / span if span > 0 else 0.0 for span in spans]

    def at(self, prices: tuple[float, ...]) -> tuple[float, list[float]]:
        """Return the bound at these prices, and how much each limit is exceeded."""
        total = self.costs.copy()
        for limit, price in zip(self.limits, prices, strict=True):
            total += price * limit.uses
        picks = np.argmin(total, axis=1)
        over = [float(limit.uses[self.rows, picks].sum()) - limit.most for limit in self.limits]
        bound = float(total[self.rows, picks].sum()) - sum(
            p * limit.most for limit, p in zip(self.limits, prices, strict=True)
        )
        if bound > self.bound:
            self.bound, self.prices = bound, prices
        value = float(self.costs[self.rows, picks].sum())
        if all(each <= 0 for each in over) and value < self.value:
            self.picks, self.value = picks, value
        return bound, over

    def best_price(self, prices: Callable[[float], tuple[float, ...]], number: int) -> float:
        """prices: returns all prices, given the price of limit `number`. Return the bound at the best price for this
        limit alone."""
        bound, over = self.at(prices(0.0))
        if over[number] <= 0 or not self.units[number]:
            return bound
        low, high = LOG_PRICES
        best = bound
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            bound, over = self.at(prices(self.units[number] * math.exp(middle)))
            best = max(best, bound)
            low, high = (middle, high) if over[number] > 0 else (low, middle)
        return best

    def best_prices(self) -> None:
        """The bound is concave in the prices. A golden-section search over one, the other at its best, is enough."""

        def bound_at(logarithm: float) -> float:
            second = self.units[1] * math.exp(logarithm)
            return self.best_price(lambda first: (first, second), 0)

        self.best_price(lambda first: (first, 0.0), 0)
        self.best_price(lambda second: (0.0, second), 1)
        low, high = (value / 2 for value in LOG_PRICES)
        inner = [high - GOLDEN * (high - low), low + GOLDEN * (high - low)]
        bounds = [bound_at(value) for value in inner]
        for _ in range(SECTIONS):
            if bounds[0] < bounds[1]:
                low, inner[0], bounds[0] = inner[0], inner[1], bounds[1]
                inner[1] = low + GOLDEN * (high - low)
                bounds[1] = bound_at(inner[1])
            else:
                high, inner[1], bounds[1] = inner[1], inner[0], bounds[0]
                inner[0] = high - GOLDEN * (high - low)
                bounds[0] = bound_at(inner[0])

    def improve(self) -> None:
        """Move one item, or two at once, as long as that costs less and keeps the limits."""
        for _ in range(ROUNDS):
            if not (self._move_one() or self._move_two()):
                break

    def decide(self) -> None:
        """Find the optimum where that does not take too long. Then there is no gap."""
        if len(self.limits) != 1 or self.value <= self.bound:
            return
        (limit,), (price,) = self.limits, self.prices
        picks = choose_exactly(self.costs, limit.uses, limit.most, price, self.value - self.bound)
        if picks is not None:
            self.picks, self.value = picks, float(self.costs[self.rows, picks].sum())
            self.bound = self.value

    def _changes(self) -> tuple[Floats, list[Floats], list[float]]:
        """Return how cost and uses change with each move of an item to another option, and the rest of the limits."""
        assert self.picks is not None
        now = (self.rows, self.picks)
        costs = self.costs - self.costs[now][:, None]
        uses = [limit.uses - limit.uses[now][:, None] for limit in self.limits]
        left = [limit.most - float(limit.uses[now].sum()) for limit in self.limits]
        return costs, uses, left

    def _move_one(self) -> bool:
        costs, uses, left = self._changes()
        for use, most in zip(uses, left, strict=True):
            costs = np.where(use <= most, costs, np.inf)
        best = int(np.argmin(costs))
        return self._take([best], float(costs.flat[best]))

    def _move_two(self) -> bool:
        costs, uses, left = self._changes()
        priced = costs + sum((price * use for price, use in zip(self.prices, uses, strict=True)), np.zeros_like(costs))
        priced[self.rows, self.picks] = np.inf
        count = min(MOVES_PAIRED, priced.size)
        moves = np.argpartition(priced.ravel(), count - 1)[:count]
        moves = moves[np.isfinite(priced.ravel()[moves])]
        items = moves // costs.shape[1]
        pairs = costs.ravel()[moves][:, None] + costs.ravel()[moves][None, :]
        pairs[items[:, None] == items[None, :]] = np.inf
        for use, most in zip(uses, left, strict=True):
            together = use.ravel()[moves][:, None] + use.ravel()[moves][None, :]
            pairs = np.where(together <= most, pairs, np.inf)
        if not pairs.size:
            return False
        best = int(np.argmin(pairs))
        first, second = divmod(best, len(moves))
        return self._take([int(moves[first]), int(moves[second])], float(pairs.flat[best]))

    def _take(self, moves: list[int], change: float) -> bool:
        if not change < -1e-12 * abs(self.value):
            return False
        assert self.picks is not None
        picks = self.picks.copy()
        for move in moves:
            item, choice = divmod(move, self.costs.shape[1])
            picks[item] = choice
        self.picks, self.value = picks, float(self.costs[self.rows, picks].sum())
        return True


def _span(values: Floats) -> float:
    return float(np.nansum(np.nanmax(values, axis=1) - np.nanmin(values, axis=1)))
