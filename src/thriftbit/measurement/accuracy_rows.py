"""Rows from what models predicted for every token. The definitions are those of `llama-perplexity --kl-divergence`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from thriftbit.measurement.measurement import CONFIDENCE_95, EXACT, Measurement, Scalar, Subject
from thriftbit.measurement.scores import Floats, Scores
from thriftbit.measurement.statistics import (
    Interval,
    mean_interval,
    quantile_interval,
    root_mean_square_interval,
    share_interval,
)

QUANTILES = {"kl_divergence_median": 0.5, "kl_divergence_99": 0.99, "kl_divergence_99_9": 0.999}


def perplexity_row(
    scores: Sequence[Scores],
    subject: Subject,
    settings: Mapping[str, Scalar],
    circumstances: Mapping[str, Any],
    texts: Sequence[int] = (),
) -> Measurement:
    """scores: one for each window. texts: of several texts, the number of windows of each (see `statistics.py`)"""
    means = -_stacked([score.log_probability for score in scores]).mean(axis=1)
    interval = _exp(mean_interval(means, texts=texts))
    return _row("perplexity", np.exp(means.mean()), interval, subject, settings, circumstances)


def divergence_rows(
    original: Sequence[Scores],
    quantized: Sequence[Scores],
    subject: Subject,
    settings: Mapping[str, Scalar],
    circumstances: Mapping[str, Any],
    texts: Sequence[int] = (),
) -> Iterator[Measurement]:
    """original, quantized: what the two say of the same windows. circumstances: with `against`. texts: as for
    `perplexity_row`."""
    before = _stacked([score.log_probability for score in original])
    after = _stacked([score.log_probability for score in quantized])
    differences = (before - after).mean(axis=1)  # paired: what is hard about a window is hard for both
    ratio = _exp(mean_interval(differences, texts=texts))
    yield _row("perplexity_ratio", np.exp(differences.mean()), ratio, subject, settings, circumstances)

    divergence = _stacked([score.divergence for score in quantized])
    interval = mean_interval(divergence.mean(axis=1), positive=True, texts=texts)
    yield _row("kl_divergence_mean", divergence.mean(), interval, subject, settings, circumstances)
    for what, fraction in QUANTILES.items():
        interval = quantile_interval(divergence, fraction, texts=texts)
        yield _row(what, np.quantile(divergence, fraction), interval, subject, settings, circumstances)

    same_top = _stacked([score.same_top for score in quantized])
    interval = share_interval(same_top, texts=texts)
    yield _row("same_top_token", same_top.mean(), interval, subject, settings, circumstances)
    change = np.exp(after) - np.exp(before)
    rms, interval = np.sqrt(np.square(change).mean()), root_mean_square_interval(change, texts=texts)
    yield _row("token_probability_change_rms", rms, interval, subject, settings, circumstances)


def _row(
    what: str,
    value: float,
    interval: Interval | None,
    subject: Subject,
    settings: Mapping[str, Scalar],
    circumstances: Mapping[str, Any],
) -> Measurement:
    low, high = interval or (None, None)
    return Measurement(
        what=what,
        value=float(value),
        low=low,
        high=high,
        interval=CONFIDENCE_95 if interval else EXACT,
        subject=subject,
        settings=settings,
        **circumstances,
    )


def _stacked(parts: Sequence[Any]) -> Floats:
    """Return (windows, positions)."""
    return np.stack(parts).astype(np.float64)


def _exp(interval: Interval | None) -> Interval | None:
    return interval and (float(np.exp(interval[0])), float(np.exp(interval[1])))
