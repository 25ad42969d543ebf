"""Intervals of what was counted: that they hold the truth as often as they say is added up here, outcome by outcome."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, multinomial

from thriftbit.measurement import exact_intervals
from thriftbit.measurement.exact_intervals import binomial_interval, exact_difference_interval


@pytest.mark.parametrize("trials", [1, 2, 5, 20, 57])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_a_share_is_covered_as_often_as_promised(trials: int, confidence: float) -> None:
    low, high = np.array([binomial_interval(count, trials, confidence) for count in range(trials + 1)]).T
    for share in np.linspace(0, 1, 401):
        covered = binom.pmf(np.arange(trials + 1), trials, share)[(low <= share) & (share <= high)].sum()
        assert covered >= confidence - 1e-9, share


def test_clopper_and_pearson_as_published() -> None:
    assert binomial_interval(7, 10) == pytest.approx((0.34755, 0.93326), abs=1e-5)
    assert binomial_interval(0, 100) == pytest.approx((0, 1 - 0.025**0.01))


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match=f"{successes} of {trials}"):
        binomial_interval(successes, trials)


def least_coverage(questions: int, confidence: float) -> float:
    """Return the coverage of the interval for a difference, at the worst point of a grid of chances: the sum over all
    outcomes."""
    outcomes = [(lost, gained) for lost in range(questions + 1) for gained in range(questions + 1 - lost)]
    low, high = np.array([exact_difference_interval(*counts, questions, confidence) for counts in outcomes]).T
    counts = np.array([(lost, gained, questions - lost - gained) for lost, gained in outcomes])
    least = 1.0
    for losing in np.linspace(0, 1, 41):
        for gaining in np.linspace(0, 1 - losing, 41):
            chances = [losing, gaining, max(0.0, 1 - losing - gaining)]
            difference = gaining - losing
            held = (low <= difference + 1e-12) & (difference - 1e-12 <= high)
            least = min(least, multinomial.pmf(counts, questions, chances)[held].sum())
    return least


@pytest.mark.parametrize(
    ("questions", "confidence"), [(1, 0.95), (2, 0.95), (3, 0.95), (6, 0.95), (13, 0.95), (6, 0.8)]
)
def test_a_difference_is_covered_as_often_as_promised(questions: int, confidence: float) -> None:
    least = least_coverage(questions, confidence)
    assert least >= confidence
    assert least < confidence + 0.08  # and not by saying nothing


def test_the_promise_holds_however_coarse_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_intervals, "_CELLS", 2)
    assert least_coverage(10, 0.8) >= 0.8


@pytest.mark.parametrize(
    ("lost", "gained", "questions"),
    [(0, 0, 1), (0, 0, 100), (3, 1, 100), (10, 5, 100), (30, 20, 600), (500, 400, 10_000)],
)
def test_the_interval_is_about_the_difference_seen_and_mirrored_with_it(lost: int, gained: int, questions: int) -> None:
    low, high = exact_difference_interval(lost, gained, questions)
    assert -1 <= low < (gained - lost) / questions < high <= 1
    assert exact_difference_interval(gained, lost, questions) == pytest.approx((-high, -low), abs=1e-12)


@pytest.mark.parametrize(
    ("lost", "gained", "questions"), [(10, 5, 100), (20, 20, 100), (30, 20, 600), (500, 400, 10_000)]
)
def test_it_is_little_wider_than_an_interval_that_promises_nothing(lost: int, gained: int, questions: int) -> None:
    low, high = exact_difference_interval(lost, gained, questions)
    difference = (gained - lost) / questions
    approximate_width = 2 * 1.96 * math.sqrt(((lost + gained) / questions - difference**2) / questions)
    assert approximate_width < high - low < 1.15 * approximate_width


def test_more_confidence_takes_a_wider_interval() -> None:
    (low_90, high_90), (low_99, high_99) = (exact_difference_interval(10, 5, 100, level) for level in (0.9, 0.99))
    assert low_99 < low_90 < high_90 < high_99


@pytest.mark.parametrize("counts", [(-1, 0, 5), (0, -1, 5), (3, 3, 5), (0, 0, 0)])
def test_impossible_differences(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="of"):
        exact_difference_interval(*counts)
