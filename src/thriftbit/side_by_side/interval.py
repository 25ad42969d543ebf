"""An exact interval for how often somebody is right, with the standard library alone.

It is Clopper and Pearson's (Biometrika 26, 1934): each end is where a binomial tail has 2.5 %, found by halving. The
one in `measurement/exact_intervals.py` takes scipy, which the base install does not have; a test holds the two
together.
"""

from __future__ import annotations

import math
from collections.abc import Callable

CONFIDENCE = 0.95
_HALVINGS = 50

Interval = tuple[float, float]


def exact_interval(right: float, votes: int) -> Interval:
    """right: of `votes`; with a half in it, the interval reaches as low as without it and as high as with a whole one.
    -> (low, high)"""
    if not 0 <= right <= votes or not votes:
        raise ValueError(f"{right} of {votes}")
    tail = (1 - CONFIDENCE) / 2
    fewest, most = math.floor(right), math.ceil(right)
    low = _halved(lambda share: _at_least(fewest, votes, share) < tail) if fewest else 0.0
    high = _halved(lambda share: _at_least(votes - most, votes, 1 - share) > tail) if most < votes else 1.0
    return low, high


def _halved(is_below: Callable[[float], bool]) -> float:
    """-> the share up to which `is_below` holds"""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2


def _at_least(successes: int, trials: int, share: float) -> float:
    """-> the probability of so many successes or more; 0 < share < 1"""
    return math.fsum(
        math.exp(_log_ways(trials, n) + n * math.log(share) + (trials - n) * math.log1p(-share))
        for n in range(successes, trials + 1)
    )


def _log_ways(trials: int, successes: int) -> float:
    return math.lgamma(trials + 1) - math.lgamma(successes + 1) - math.lgamma(trials - successes + 1)
