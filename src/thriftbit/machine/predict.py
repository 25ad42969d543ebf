"""How fast a model will read and write on a computer that was measured, with how far that may be off.

Writing a token means reading every weight that takes part in it, and what is kept of the text so far. How many bytes a
second that goes is not the memory's bandwidth alone: each format has kernels of its own, and at equal bytes they differ
by a factor of three. The profile has the rate of each (`FormatRate`), measured with the real engine; so the time of a
token is a sum over formats, plus the cache over the bandwidth, plus what every layer and every entry of the vocabulary
costs in handling. Reading a prompt is arithmetic: weights times tokens over the measured rate, plus attention.

Where a format was not measured, bandwidth bounds it, and the interval says how loosely. Without any measurement there
is no number. What real runs showed of earlier predictions corrects later ones (`corrections.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from thriftbit.machine.corrections import Correction, no_correction
from thriftbit.machine.memory_needed import memory_needed
from thriftbit.machine.model_shape import ModelShape
from thriftbit.machine.prediction import Prediction, unknown, widened
from thriftbit.machine.profile import FormatRate, Profile, Spread, StepCost

__all__ = ["Prediction", "decode_rate", "energy_per_token", "first_token_seconds", "memory_needed", "prefill_rate"]

NOT_MEASURED = "this computer's speed was not measured: `thriftbit doctor --measure` takes a minute"

# What a format reaches of the memory's bandwidth, where it was not measured itself: from slow kernels on a fast memory
# to fast kernels on a slow one. (Of the formats measured on the machines we had, all lie within.)
_OF_BANDWIDTH = Spread(0.55, 0.2, 1.0)
# Handling, where it was not measured: starting the operations of a layer. And choosing among the vocabulary.
_LAYER_SECONDS = Spread(20e-6, 5e-6, 60e-6)
_TOKEN_SECONDS = Spread(8e-9, 2e-9, 20e-9)
# A machine is never twice in the same state, apart from the spread of the measurement itself; and much less so where
# other programs kept its cores busy meanwhile. As factors, of an idle machine and of one with no idle core.
_IDLE_DRIFT, _BUSY_DRIFT = 1.15, 1.4

_NOTABLY_BUSY = 0.25

_PLAIN = ("F32", "F16", "BF16")


def decode_rate(
    shape: ModelShape,
    profile: Profile | None,
    *,
    filled_tokens: int = 512,
    threads: int | None = None,
    cache_type: str = "F16",
    correction: Correction | None = None,
) -> Prediction:
    """-> tokens written in a second, after `filled_tokens` of text

    threads: those that were measured best, by default. correction: from `corrections.py`.
    """
    if profile is None or not (profile.rates or profile.bandwidth):
        return unknown(NOT_MEASURED)
    if shape.layers is None:
        return unknown("how this family keeps the text is not known")
    threads = threads or profile.best_threads or 1
    rates, bandwidth = _rates(profile.rates, threads), _bandwidth(profile, threads)
    seconds = _handling_seconds(shape, next((cost for cost in profile.step_costs if cost.threads == threads), None))
    guessed: list[str] = []
    for format, size_bytes in shape.bytes_per_token().items():
        rate = rates.get(format)
        spread = rate.decode_bytes_per_second if rate else _from_bandwidth(bandwidth, rates.values())
        if spread is None:
            return unknown(f"neither {format} nor the memory's bandwidth was measured with {threads} threads")
        if rate is None and format not in _PLAIN:
            guessed.append(format)
        seconds = _plus(seconds, _over(size_bytes, spread))
    reading = bandwidth or next(iter(rates.values())).decode_bytes_per_second
    cached = sum(layer.read_bytes(filled_tokens, cache_type, cache_type) for layer in shape.layers)
    seconds = _plus(seconds, _over(cached, widened(reading, 0.3, 1.0)))
    reason = _reason("weights read for a token over the measured rate of each format", guessed, threads)
    return _corrected(seconds, reason, correction, profile)


def prefill_rate(
    shape: ModelShape,
    profile: Profile | None,
    *,
    prompt_tokens: int = 512,
    threads: int | None = None,
    correction: Correction | None = None,
) -> Prediction:
    """-> tokens of a prompt of that length read in a second"""
    if profile is None or not profile.rates:
        return unknown(NOT_MEASURED)
    if shape.layers is None:
        return unknown("how this family keeps the text is not known")
    threads = threads or profile.best_threads or 1
    rates = _rates(profile.rates, threads)
    if not rates:
        return unknown(f"no format was measured with {threads} threads")
    measured = [rate.prefill_weights_per_second for rate in rates.values()]
    whole_range = Spread(
        sorted(spread.median for spread in measured)[len(measured) // 2],
        min(spread.low for spread in measured),
        max(spread.high for spread in measured),
    )
    seconds, guessed = Spread(0.0, 0.0, 0.0), []
    for format, weights in shape.weights_per_token().items():
        rate = rates.get(format)
        if rate is None and format not in _PLAIN:
            guessed.append(format)
        seconds = _plus(seconds, _over(weights, rate.prefill_weights_per_second if rate else whole_range))
    seen = sum(
        min(prompt_tokens / 2, layer.window_tokens or prompt_tokens) for layer in shape.layers if layer.key_width
    )
    seconds = _plus(seconds, _over(2 * shape.query * seen, widened(whole_range, 0.5, 1.5)))
    reason = _reason("arithmetic of a prompt over the measured rate of each format", guessed, threads)
    return _corrected(seconds, reason, correction, profile)


def first_token_seconds(prefill: Prediction, decode: Prediction, prompt_tokens: int) -> Prediction:
    """-> how long until the first word of the answer to a prompt of that length"""
    parts = (prefill.value, prefill.low, prefill.high, decode.value, decode.low, decode.high)
    if any(part is None for part in parts):
        return unknown(prefill.reason if prefill.value is None else decode.reason)
    value, low, high, step, step_low, step_high = (part or 0.0 for part in parts)
    return Prediction(
        prompt_tokens / value + 1 / step,
        prompt_tokens / high + 1 / step_high,
        prompt_tokens / low + 1 / step_low,
        prefill.reason,
    )


def energy_per_token(decode: Prediction, watts: Spread | None) -> Prediction:
    """watts: that the machine drew while it wrote, where a counter measured it. -> joules for a token"""
    if watts is None:
        return unknown("no run with an energy counter was measured here")
    if decode.value is None or decode.low is None or decode.high is None:
        return unknown(decode.reason)
    return Prediction(
        watts.median / decode.value,
        watts.low / decode.high,
        watts.high / decode.low,
        "the measured power while writing, over the predicted speed",
    )


def _rates(rates: Iterable[FormatRate], threads: int) -> Mapping[str, FormatRate]:
    return {rate.format: rate for rate in rates if rate.threads == threads}


def _bandwidth(profile: Profile, threads: int) -> Spread | None:
    """-> with that many threads, or with the nearest number that was measured"""
    nearest = min(profile.bandwidth, key=lambda each: abs(each.threads - threads), default=None)
    return nearest.bytes_per_second if nearest else None


def _from_bandwidth(bandwidth: Spread | None, measured: Iterable[FormatRate]) -> Spread | None:
    """-> what a format that was not measured may reach: between the slowest and the fastest that were"""
    known = [rate.decode_bytes_per_second for rate in measured]
    if known:
        middle = sorted(spread.median for spread in known)[len(known) // 2]
        return Spread(middle, min(spread.low for spread in known), max(spread.high for spread in known))
    if bandwidth is None:
        return None
    return Spread(
        bandwidth.median * _OF_BANDWIDTH.median, bandwidth.low * _OF_BANDWIDTH.low, bandwidth.high * _OF_BANDWIDTH.high
    )


def _handling_seconds(shape: ModelShape, measured: StepCost | None) -> Spread:
    """-> what a token takes beyond reading weights"""
    layers = len(shape.layers or ())
    chosen = _times(shape.tokens, _TOKEN_SECONDS)
    if measured is None:
        return _plus(chosen, _times(layers, _LAYER_SECONDS))
    seconds = layers * measured.layer_seconds + measured.token_seconds
    return _plus(chosen, Spread(seconds, 0.6 * seconds, 1.7 * seconds))


def _times(count: int, each: Spread) -> Spread:
    return Spread(count * each.median, count * each.low, count * each.high)


def _over(amount: float, rate: Spread) -> Spread:
    """-> seconds: low is the shortest time"""
    return Spread(amount / rate.median, amount / rate.high, amount / rate.low)


def _plus(one: Spread, other: Spread) -> Spread:
    return Spread(one.median + other.median, one.low + other.low, one.high + other.high)


def _corrected(seconds: Spread, reason: str, correction: Correction | None, profile: Profile) -> Prediction:
    correction = correction or no_correction()
    busy = _busy_share(profile)
    drift = _IDLE_DRIFT + busy * (_BUSY_DRIFT - _IDLE_DRIFT)
    value = correction.factor / seconds.median
    if correction.runs:
        # what runs showed of the error replaces what the parts may add up to
        low, high = value * min(correction.low, 1 / drift), value * max(correction.high, drift)
        reason = f"{reason}; corrected by {correction.runs} runs here"
    else:
        low, high = 1 / seconds.high / drift, 1 / seconds.low * drift
    if busy > _NOTABLY_BUSY:
        reason = f"{reason}; other programs kept it busy when it was measured, so less sure"
    return Prediction(value, low, high, reason)


def _busy_share(profile: Profile) -> float:
    """-> of its cores, that other programs used while it was measured, from 0 to 1"""
    cores = profile.facts.processor.usable_cores.value or profile.facts.processor.logical_cores.value or 1
    return min(1.0, (profile.busy_cores or 0.0) / max(1.0, cores))


def _reason(what: str, guessed: list[str], threads: int) -> str:
    plural = "" if threads == 1 else "s"
    unsure = f" ({', '.join(sorted(guessed))} was not measured: between the others)" if guessed else ""
    return f"{what}, with {threads} thread{plural}{unsure}"
