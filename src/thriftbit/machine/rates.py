"""The rate of a format with a number of threads: measured, or between what was.

A profile has every format with the number of threads that suits the computer, the common ones with one thread as well,
and two with each number. For anything else there are bounds that no processor breaks: more threads are not slower in
all, and n times the threads are at most n times as fast, nor faster than memory is read. The middle of the bounds is
the prediction, and they are its interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from thriftbit.machine.profile import FormatRate, Profile, Spread, StepCost


def format_rates(profile: Profile, threads: int) -> dict[str, FormatRate]:
    """-> of every format that was measured, with that many threads"""
    found = {rate.format: rate for rate in profile.rates if rate.threads == threads}
    for name in dict.fromkeys(rate.format for rate in profile.rates):
        if name not in found:
            measured = [rate for rate in profile.rates if rate.format == name]
            found[name] = _between(measured, threads, bandwidth_with(profile, threads))
    return found


def bandwidth_with(profile: Profile, threads: int) -> Spread | None:
    """-> with that many threads, or with the nearest number that was measured"""
    nearest = min(profile.bandwidth, key=lambda each: abs(each.threads - threads), default=None)
    return nearest.bytes_per_second if nearest else None


def step_cost_with(profile: Profile, threads: int) -> StepCost | None:
    """-> with that many threads, or with the nearest number that was measured"""
    return min(profile.step_costs, key=lambda each: abs(math.log(each.threads / threads)), default=None)


def _between(measured: Iterable[FormatRate], threads: int, bandwidth: Spread | None) -> FormatRate:
    known = sorted(measured, key=lambda rate: rate.threads)
    fewer = [rate for rate in known if rate.threads < threads]
    more = [rate for rate in known if rate.threads > threads]
    below, above = (fewer[-1] if fewer else None), (more[0] if more else None)
    decode = _bounded(
        below and (below.threads, below.decode_bytes_per_second),
        above and (above.threads, above.decode_bytes_per_second),
        threads,
        bandwidth.high if bandwidth else math.inf,
    )
    prefill = _bounded(
        below and (below.threads, below.prefill_weights_per_second),
        above and (above.threads, above.prefill_weights_per_second),
        threads,
        math.inf,
    )
    return FormatRate(known[0].format, threads, decode, prefill)


def _bounded(below: tuple[int, Spread] | None, above: tuple[int, Spread] | None, threads: int, limit: float) -> Spread:
    """below, above: the nearest numbers of threads that were measured, one of them at least"""
    lows, highs = [], []
    if below:
        lows.append(below[1].low)
        highs.append(below[1].high * threads / below[0])
    if above:
        lows.append(above[1].low * threads / above[0])
        highs.append(above[1].high)
    low = max(lows)
    high = max(low, min([*highs, limit]))
    return Spread(math.sqrt(low * high), low, high)
