"""The interval without scipy is the one that scipy gives."""

from __future__ import annotations

import math

import pytest
from scipy.stats import beta

from thriftbit.measurement.clopper_pearson import clopper_pearson


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize(
    ("successes", "trials"),
    [(0, 1), (1, 1), (0, 7), (7, 7), (23, 40), (1, 1000), (618, 1000), (3.7, 11.2), (0.4, 0.9), (70_000, 100_000)],
)
def test_it_is_scipys(successes: float, trials: float, confidence: float) -> None:
    tail, failures = (1 - confidence) / 2, trials - successes
    low = beta.ppf(tail, successes, failures + 1) if successes else 0
    high = beta.isf(tail, successes + 1, failures) if failures else 1
    assert clopper_pearson(successes, trials, confidence) == pytest.approx((low, high), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 3), (4, 3), (0, 0), (math.nan, 3)])
def test_what_cannot_be_counted_is_refused(successes: float, trials: float) -> None:
    with pytest.raises(ValueError):
        clopper_pearson(successes, trials, 0.95)
