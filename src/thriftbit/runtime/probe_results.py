"""From timings to rates.

A token takes its weights' bytes over the rate of their format, and something for every layer whatever its size. The
latter is told apart from the former through models that have the same bytes in few wide layers and in many narrow ones;
then it is taken off, so that a rate holds for layers of any width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from thriftbit.machine.bandwidth import spread_of
from thriftbit.machine.profile import FormatRate, StepCost
from thriftbit.machine.rates import busiest_tokens
from thriftbit.runtime.probe_model import ProbeModel, Shape
from thriftbit.runtime.probe_rates import PROMPT_TOKENS, SEEN_TOKENS, Timings, usual_slowdown


def step_cost(threads: int, timed: Sequence[tuple[ProbeModel, Sequence[float]]]) -> StepCost | None:
    """-> c and s of: seconds = bytes / rate + layers × c + s, through three models

    timed: each with its seconds for a token, by repetition: wide layers, narrow layers, one narrow layer. The fastest
    of each tell c and s, since the difference of totals is small and whatever else runs only ever slows one down; then
    both are made as much slower as the usual answer is. None where a layer would cost nothing: then something else
    disturbed one of the models by more than all layers take.
    """
    terms = np.array([[model.decode_bytes, model.layers, 1.0] for model, _ in timed])
    fastest = np.array([min(seconds) for _, seconds in timed])
    _, layer_seconds, token_seconds = np.linalg.solve(terms, fastest).tolist()
    if layer_seconds <= 0:
        return None
    slower = usual_slowdown([seconds for _, seconds in timed])
    return StepCost(threads, slower * layer_seconds, slower * max(0.0, token_seconds))


def attention_seconds(cost: StepCost, model: ProbeModel, shape: Shape, longer_seconds: float | None) -> StepCost:
    """longer_seconds: that a token takes more in a long text; None where it was not measured, and what is not
    above zero was lost in noise. -> the cost, with that of looking back at one token with one number of a query"""
    if longer_seconds is None or longer_seconds <= 0:
        return cost
    shortly, at_length = (busiest_tokens(tokens, cost.threads) for tokens in SEEN_TOKENS)
    return replace(cost, attention_seconds=longer_seconds / (model.layers * shape.width * (at_length - shortly)))


def format_rate(model: ProbeModel, threads: int, timings: Timings, step: StepCost | None) -> FormatRate:
    """-> the rates, the cost of the steps taken off"""
    apart = 0.0 if step is None else model.layers * step.layer_seconds + step.token_seconds
    written = [model.decode_bytes / max(seconds - apart, seconds / 2) for seconds in timings.token_seconds]
    read = [model.prefill_weights * PROMPT_TOKENS / seconds for seconds in timings.prompt_seconds]
    return FormatRate(model.format, threads, spread_of(written), spread_of(read))


def pooled(visits: Iterable[Timings]) -> Timings:
    """-> the repetitions of several visits to one format"""
    every = list(visits)
    return Timings(
        token_seconds=[seconds for timings in every for seconds in timings.token_seconds],
        prompt_seconds=[seconds for timings in every for seconds in timings.prompt_seconds],
        device=every[0].device,
    )
