"""The exact interval for how often something happens, by Clopper and Pearson (Biometrika 26, 1934), without scipy.

Each end is where a tail of the binomial distribution has half of what the confidence leaves, found by halving. Tails
are values of the incomplete beta function, computed by its continued fraction (Lentz's method: Press and others,
Numerical Recipes, 6.4). So counts need not be whole numbers: answers that depend on one another are worth fewer.
"""

from __future__ import annotations

import math
from collections.abc import Callable

_HALVINGS = 60
_MOST_TERMS, _CLOSE_ENOUGH = 10_000, 1e-15
_TINY = 1e-300  # in place of a zero that would be divided by
_NEGLIGIBLE = 1e-12


def clopper_pearson(successes: float, trials: float, confidence: float) -> tuple[float, float]:
    """successes: of `trials`; need not be whole numbers. Returns (low, high), which covers the probability at least as
    often as `confidence` says. Raises ValueError for more successes than trials, and for none of both."""
    if not 0 <= successes <= trials or not trials:
        raise ValueError(f"{successes} of {trials}")
    tail, failures = (1 - confidence) / 2, trials - successes
    low, high = 0.0, 1.0
    if successes > _NEGLIGIBLE:
        low = _halved(lambda share: _incomplete_beta(successes, failures + 1, share) < tail)
    if failures > _NEGLIGIBLE:
        high = _halved(lambda share: _incomplete_beta(failures, successes + 1, 1 - share) > tail)
    return low, high


def _halved(is_below: Callable[[float], bool]) -> float:
    """Return the share up to which `is_below` holds."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularized incomplete beta function I_x(a, b); a, b > 0, 0 < x < 1."""
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    if x < (a + 1) / (a + b + 2):  # where the fraction converges fast; elsewhere by symmetry
        return math.exp(scale) * _fraction(a, b, x) / a
    return 1 - math.exp(scale) * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    numerator, denominator = 1.0, 1 / _not_zero(1 - (a + b) * x / (a + 1))
    value = denominator
    for m in range(1, _MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            denominator = 1 / _not_zero(1 + term * denominator)
            numerator = _not_zero(1 + term / numerator)
            change = numerator * denominator
            value *= change
        if abs(change - 1) < _CLOSE_ENOUGH:
            break
    return value


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
