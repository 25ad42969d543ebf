"""Intervals for counts, which cover the truth at least as often as they claim, however small the numbers are.

scipy comes with the extra `torch`, so it is imported only where it is needed.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from thriftbit.measurement.clopper_pearson import clopper_pearson
from thriftbit.measurement.statistics import CONFIDENCE, Interval

_BISECTIONS = 16
_CELLS = 128
_NEGLIGIBLE = 1e-12
_RANK_DEVIATIONS = 1.96

Floats = NDArray[np.float64]


def binomial_interval(successes: int, trials: int, confidence: float = CONFIDENCE) -> Interval:
    """Return (low, high) for the probability in independent trials, by Clopper & Pearson (Biometrika 26, 1934). It
    covers the probability at least as often as it claims."""
    return clopper_pearson(successes, trials, confidence)


def exact_difference_interval(
    only_original_right: int, only_quantized_right: int, questions: int, confidence: float = CONFIDENCE
) -> Interval:
    """An interval for the difference of two models' accuracies on the same questions (quantized minus original) that
    covers it at least as often as it says, however few the questions. Only those that one of them alone got right tell.

    A low end is Buehler's limit: the greatest difference at which an outcome ranked as high as this one, or higher, has
    no more than the allowed probability, whatever the share of questions on which the models differ. With b questions
    lost and c gained, outcomes are ranked by an approximate limit, as Lloyd & Moldovan advise (Statistics in Medicine
    26, 2007): c - b - 1.96 √(b + c + 2). The unknown share is searched within an exact interval of its own, whose small
    error is taken off the allowed probability (Berger & Boos, J. Am. Stat. Assoc. 89, 1994); cell by cell, with a bound
    for the whole cell, which there is because a high rank is the likelier the likelier gains are and the less likely
    losses. The high end is the same, mirrored.
    """
    lost, gained = only_original_right, only_quantized_right
    if min(lost, gained) < 0 or not 0 < questions >= lost + gained:
        raise ValueError(f"{lost} and {gained} of {questions}")
    allowed = 1 - confidence
    allowed_for_share = allowed / 50
    share = binomial_interval(lost + gained, questions, 1 - allowed_for_share)
    allowed_for_end = (allowed - allowed_for_share) / 2
    low = _lowest_difference(lost, gained, questions, share, allowed_for_end)
    return low, -_lowest_difference(gained, lost, questions, share, allowed_for_end)


def _lowest_difference(lost: int, gained: int, questions: int, share: Interval, allowed: float) -> float:
    """Return a difference that this outcome, or one that ranks higher, refutes with all below it, to a 65,000th of
    where it can be. Refuted is -share[1] always: by `share` itself."""
    needed = _gains_needed(gained - lost - _RANK_DEVIATIONS * math.sqrt(lost + gained + 2), questions)
    low, high = -share[1], share[1]
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if _highest_probability(needed, questions, middle, share) <= allowed:
            low = middle
        else:
            high = middle
    return low


def _gains_needed(rank: float, questions: int) -> Floats:
    """Return, for each number b of questions lost, the least c gained with c - b - 1.96 √(b + c + 2) ≥ rank; the rank
    grows with c and falls with b."""
    lost = np.arange(questions + 1, dtype=np.float64)
    # with s = √(b + c + 2): s² - 1.96 s ≥ rank + 2 b + 2
    inside = _RANK_DEVIATIONS**2 + 4 * (rank + 2 * lost + 2)
    root = (_RANK_DEVIATIONS + np.sqrt(np.maximum(inside, 0))) / 2
    gained = np.where(inside < 0, 0, np.ceil(root**2 - lost - 2 - 1e-9))
    return np.maximum(gained, 0)


def _highest_probability(needed: Floats, questions: int, difference: float, share: Interval) -> float:
    """Return a bound of the probability of `needed` or more gained, whatever share of questions differs: for each cell
    of shares, with the least chance to lose and the greatest to gain in it."""
    from scipy.special import betainc
    from scipy.stats import binom

    least, most = max(share[0], abs(difference)), share[1]
    edges = np.square(np.linspace(math.sqrt(least), math.sqrt(max(most, least)), _CELLS + 1))
    losing = np.maximum((edges[:-1] - difference) / 2, 0)[:, None]
    gaining = np.maximum((edges[1:] + difference) / 2, 0)[:, None]
    first = int(binom.ppf(_NEGLIGIBLE, questions, losing.min()))
    last = int(binom.isf(_NEGLIGIBLE, questions, losing.max()))
    lost = np.arange(max(first, 0), min(last, questions) + 1)
    left, wanted = questions - lost, needed[lost]
    chance = np.minimum(gaining / (1 - losing), 1)
    tail = betainc(np.maximum(wanted, 1), np.maximum(left - wanted + 1, 1), chance)
    tail = np.where(wanted < 1, 1, np.where(wanted > left, 0, tail))
    probability = np.sum(binom.pmf(lost, questions, losing) * tail, axis=1)
    return float(probability.max()) + 2 * _NEGLIGIBLE
