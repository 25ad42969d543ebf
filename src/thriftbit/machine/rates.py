"""The rate of a format with a number of threads: measured, or between what was measured.

A profile has every format with the number of threads that suits the computer, the common formats also with one thread,
and two formats with each number. For any other combination there are bounds that hold on every processor: more threads
together are never slower, and n times the threads are at most n times as fast, and never faster than memory can be
read. The prediction is the middle of the bounds, and the bounds are its interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from thriftbit.machine.profile import FormatRate, Profile, Spread, StepCost

_CELLS_AT_ONCE, _CELLS_WORTH_SHARING = 256, 512


def format_rates(profile: Profile, threads: int) -> dict[str, FormatRate]:
    """Return the rate of every format that was measured with that many threads."""
    found = {rate.format: rate for rate in profile.rates if rate.threads == threads}
    for name in dict.fromkeys(rate.format for rate in profile.rates):
        if name not in found:
            measured = [rate for rate in profile.rates if rate.format == name]
            found[name] = _between(measured, threads, bandwidth_with(profile, threads))
    return found


def bandwidth_with(profile: Profile, threads: int) -> Spread | None:
    """Return the bandwidth with that many threads, or with the nearest number that was measured."""
    nearest = min(profile.bandwidth, key=lambda each: abs(each.threads - threads), default=None)
    return nearest.bytes_per_second if nearest else None


def step_cost_with(profile: Profile, threads: int) -> StepCost | None:
    """Return the cost with that many threads, or with the nearest number that was measured."""
    return min(profile.step_costs, key=lambda each: abs(math.log(each.threads / threads)), default=None)


def busiest_tokens(seen_tokens: float, threads: int, *, half_precision: bool = True) -> float:
    """Return how many of the earlier tokens the busiest thread looks back at, for every head.

    llama.cpp computes with as many cells of the cache as are in use, rounded up. If there are many cells in half
    precision, each thread gets an equal range of them. Cells behind the text cost nothing, so the last threads may have
    little to do. Otherwise the heads are divided among the threads.
    """
    cells = math.ceil((seen_tokens + 1) / _CELLS_AT_ONCE) * _CELLS_AT_ONCE
    if cells < _CELLS_WORTH_SHARING or not half_precision:
        return seen_tokens / threads
    return min(seen_tokens, math.ceil(cells / threads))


def _between(measured: Iterable[FormatRate], threads: int, bandwidth: Spread | None) -> FormatRate:
    known = sorted(measured, key=lambda rate: rate.threads)
    below = max((rate for rate in known if rate.threads < threads), key=lambda rate: rate.threads, default=None)
    above = min((rate for rate in known if rate.threads > threads), key=lambda rate: rate.threads, default=None)

    def bounded(what: Callable[[FormatRate], Spread], limit: float) -> Spread:
        lows, highs = [], [limit]
        if below is not None:
            lows.append(what(below).low)
            highs.append(what(below).high * threads / below.threads)
        if above is not None:
            lows.append(what(above).low * threads / above.threads)
            highs.append(what(above).high)
        low, high = max(lows), max(max(lows), min(highs))
        return Spread(math.sqrt(low * high), low, high)

    return FormatRate(
        known[0].format,
        threads,
        bounded(lambda rate: rate.decode_bytes_per_second, bandwidth.high if bandwidth else math.inf),
        bounded(lambda rate: rate.prefill_weights_per_second, math.inf),
    )
