"""The optimum within one limit, where few enough options can be part of it.

Prices (`knapsack.py`) leave a gap between the best choice found and the lower bound. An option that costs more than
this gap by itself, at the price of the limit, is in no better solution. Neither is a combination of options whose
surplus is larger than the gap. The remaining options are combined item by item, keeping every partial choice that no
other one beats in both use and cost: dynamic programming over Pareto sets (Nemhauser and Ullmann 1969).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Picks = NDArray[np.int64]

MOST_STATES = 100_000  # partial choices at once; some seconds in all
SLACK = 1e-12  # of the gap, for what is rounded


def choose_exactly(costs: Floats, uses: Floats, most: float, price: float, gap: float) -> Picks | None:
    """Return the picks that cost least within the gap; None if there are none, or if it would take too many states.

    costs, uses: (items, choices); costs are infinite for options that an item does not have. most: the limit of the sum
    of uses. price: of one unit of use. gap: how far above the bound at this price the cost may be.
    """
    priced = costs + price * uses
    surplus = priced - priced.min(axis=1, keepdims=True)
    gap *= 1 + SLACK
    order = np.argsort((surplus <= gap).sum(axis=1))  # what is decided already first
    used, cost, over = np.zeros(1), np.zeros(1), np.zeros(1)
    history: list[tuple[NDArray[np.int32], NDArray[np.int16]]] = []
    least_left = _least_left(np.where(np.isfinite(costs), uses, np.inf).min(axis=1)[order])
    for number, item in enumerate(order):
        choices = np.flatnonzero(surplus[item] <= gap)
        all_used = (used[:, None] + uses[item, choices]).ravel()
        all_cost = (cost[:, None] + costs[item, choices]).ravel()
        all_over = (over[:, None] + surplus[item, choices]).ravel()
        possible = np.flatnonzero((all_over <= gap) & (all_used + least_left[number] <= most))
        by_use = possible[np.lexsort((all_cost[possible], all_used[possible]))]
        best_before = np.minimum.accumulate(np.concatenate([[np.inf], all_cost[by_use]]))[:-1]
        kept = by_use[all_cost[by_use] < best_before]
        if not 0 < len(kept) <= MOST_STATES:
            return None
        used, cost, over = all_used[kept], all_cost[kept], all_over[kept]
        history.append(((kept // len(choices)).astype(np.int32), choices[kept % len(choices)].astype(np.int16)))
    picks = np.zeros(len(costs), np.int64)
    state = int(np.argmin(cost))
    for item, (parents, chosen) in zip(order[::-1], reversed(history), strict=True):
        picks[item] = chosen[state]
        state = int(parents[state])
    return picks


def _least_left(least: Floats) -> Floats:
    """Return, after each item, the least that all following items use."""
    return np.concatenate([np.cumsum(least[::-1])[::-1][1:], [0.0]])
