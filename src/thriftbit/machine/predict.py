"""How fast a model will read and write on a measured computer, and how far the prediction may be off.

To write a token, the engine reads every weight that takes part in it, and what is kept of the text so far. Memory
bandwidth alone does not decide how fast: each format has its own kernels, and for equal bytes they differ by a factor
of three. The profile has the rate of each format (`FormatRate`), measured with the real engine. So the time for a token
is a sum over formats, plus looking back at the text, plus a cost for every layer and every entry of the vocabulary.
Looking back is more than reading: after a few hundred tokens a small model may spend as long on it as on its weights,
so it is measured too. The time to read a prompt is weights times tokens, divided by the measured rate, plus attention.

Where a format was not measured, bandwidth bounds its rate, and the interval says how loosely. Without any measurement
there is no number. Real runs correct later predictions (`corrections.py`).

Where weights lie in two memories (`placement.py`), each part takes its own time, one after the other. The profile has
the rates of one device; of a GPU that was not measured, only the bandwidths are known that GPUs with a memory of their
own have, so the interval is wide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from thriftbit.containers.entry import Entry
from thriftbit.machine.corrections import Correction, no_correction
from thriftbit.machine.memory_needed import memory_needed
from thriftbit.machine.model_shape import ModelShape
from thriftbit.machine.placement import Placement
from thriftbit.machine.prediction import Prediction, unknown, widened
from thriftbit.machine.profile import FormatRate, Profile, Spread, StepCost
from thriftbit.machine.rates import bandwidth_with, busiest_tokens, format_rates, step_cost_with
from thriftbit.machine.running_plan import RunningPlan
from thriftbit.sizes import counted

__all__ = ["Prediction", "decode_rate", "energy_per_token", "first_token_seconds", "memory_needed", "prefill_rate"]

NOT_MEASURED = "this computer's speed was not measured: `thriftbit doctor --measure` takes a minute"

# What a format reaches of the memory's bandwidth, where it was not measured itself: from slow kernels on a fast memory
# to fast kernels on a slow one. (Of the formats measured on the machines we had, all lie within.)
_OF_BANDWIDTH = Spread(0.55, 0.2, 1.0)
# Of GPUs with a memory of their own, from small cards of 2019 to large ones of 2025, in bytes per second
_GPU_BANDWIDTH = Spread(360e9, 120e9, 1400e9)
# Handling, where it was not measured: starting the operations of a layer. And choosing among the vocabulary.
_LAYER_SECONDS = Spread(20e-6, 5e-6, 60e-6)
_TOKEN_SECONDS = Spread(3e-9, 1e-9, 10e-9)
# Looking back, where it was not measured: for a number of a query and a token, with one thread. A processor turns the
# text's half-precision numbers into single ones as it reads them, and that takes longer than the memory does.
_ATTENTION_SECONDS = Spread(0.5e-9, 0.1e-9, 1.5e-9)
# Of that, what it takes while a prompt is read: many tokens look back at the same numbers at a time. (0.27 and 0.36 on
# the one processor that it was tried on.)
_READING_ATTENTION = Spread(0.3, 0.15, 1.0)
# Beside the spread of the measurement, a machine is never twice in the same state, least of all while other programs
# keep its cores busy. Two factors: for an idle machine, and for one without an idle core.
_IDLE_DRIFT, _BUSY_DRIFT = 1.15, 1.4
_NOTABLY_BUSY = 0.25

_PLAIN = ("F32", "F16", "BF16")
_CPU = "CPU"
_NO_TIME = Spread(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class _Device:
    """What computes some of the layers. rates: of formats that were measured on it. bandwidth: of its memory."""

    name: str
    rates: Mapping[str, FormatRate]
    bandwidth: Spread | None


def decode_rate(
    shape: ModelShape,
    profile: Profile | None,
    *,
    filled_tokens: int = 512,
    threads: int | None = None,
    plan: RunningPlan | None = None,
    place: Placement | None = None,
    correction: Correction | None = None,
) -> Prediction:
    """Return the tokens written per second, after `filled_tokens` of text.

    threads: by default the number that was measured best. plan: for the types of its cache. place: where the weights
    lie; None for all of them on the device that was measured. correction: from `corrections.py`, of that device.
    """
    if profile is None or not (profile.rates or profile.bandwidth):
        return unknown(NOT_MEASURED)
    if shape.layers is None:
        return unknown("how this family keeps the text is not known")
    threads = threads or profile.best_threads or 1
    plan = plan or RunningPlan(0)
    seconds = _times(shape.tokens, _TOKEN_SECONDS)
    guessed: list[str] = []
    unmeasured = ""
    for device, counts, layers in _parts(shape, profile, threads, place):
        is_measured = _is_measured(device, profile)
        for format, size_bytes in shape.bytes_per_token(counts).items():
            rate = device.rates.get(format)
            spread = rate.decode_bytes_per_second if rate else _from_bandwidth(device.bandwidth, device.rates.values())
            if spread is None:
                return unknown(
                    f"neither {format} nor the memory's bandwidth was measured with {counted(threads, 'thread')}"
                )
            if rate is None and is_measured and format not in _PLAIN:
                guessed.append(format)
            seconds = _plus(seconds, _over(size_bytes, spread))
        steps = step_cost_with(profile, threads) if is_measured else None
        seconds = _plus(seconds, _handling_seconds(len(layers), steps, threads))
        looking_back = _looking_back_seconds(shape, layers, filled_tokens, plan, device, steps, threads)
        seconds = _plus(seconds, looking_back)
        if not is_measured:
            unmeasured = f"; {device.name} was not measured, so its part is a guess"
            correction = None
    what = f"predicted from this computer's benchmark, after {filled_tokens} tokens of text"
    reason = f"{_reason(what, guessed, threads)}{unmeasured}"
    return _corrected(seconds, reason, correction, profile)


def _parts(
    shape: ModelShape, profile: Profile, threads: int, place: Placement | None
) -> list[tuple[_Device, Callable[[Entry], bool], list[int]]]:
    """Return what computes, which tensors it reads, and in which layers it looks back."""
    layers = list(range(len(shape.layers or ())))
    rates, bandwidth = format_rates(profile, threads), bandwidth_with(profile, threads)
    measured_on_gpu = profile.device not in ("", _CPU)
    main = _Device("the processor", {} if measured_on_gpu else rates, bandwidth)
    if place is None:
        return [(_Device(main.name, rates, bandwidth), lambda entry: True, layers)]
    is_shared = any(gpu.shared.value for gpu in profile.facts.gpus)
    gpu = _Device("the GPU", rates if measured_on_gpu else {}, bandwidth if is_shared else _GPU_BANDWIDTH)
    on_gpu = [layer for layer in layers if place.is_layer_on_gpu(layer)]
    in_main = [layer for layer in layers if not place.is_layer_on_gpu(layer)]
    parts: list[tuple[_Device, Callable[[Entry], bool], list[int]]] = []
    if place.gpu_layers:
        parts.append((gpu, place.is_on_gpu, on_gpu))
    if in_main or place.expert_layers:
        parts.append((main, lambda entry: not place.is_on_gpu(entry), in_main))
    return parts


def _is_measured(device: _Device, profile: Profile) -> bool:
    return bool(device.rates) or (device.name == "the processor" and not profile.rates)


def prefill_rate(
    shape: ModelShape,
    profile: Profile | None,
    *,
    prompt_tokens: int = 512,
    threads: int | None = None,
    correction: Correction | None = None,
) -> Prediction:
    """Return the tokens read per second, for a prompt of that length."""
    if profile is None or not profile.rates:
        return unknown(NOT_MEASURED)
    if shape.layers is None:
        return unknown("how this family keeps the text is not known")
    threads = threads or profile.best_threads or 1
    rates = format_rates(profile, threads)
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
    steps = step_cost_with(profile, threads)
    if steps is not None and steps.attention_seconds is not None:
        looking_back = _times(shape.query * seen / threads * steps.attention_seconds, _READING_ATTENTION)
    else:
        looking_back = _over(2 * shape.query * seen, widened(whole_range, 0.1, 1.5))
    seconds = _plus(seconds, looking_back)
    reason = _reason("predicted from this computer's benchmark, for a prompt", guessed, threads)
    return _corrected(seconds, reason, correction, profile)


def first_token_seconds(prefill: Prediction, decode: Prediction, prompt_tokens: int) -> Prediction:
    """Return the seconds until the first token of the answer to a prompt of that length."""
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
    """watts: that the machine drew while it wrote, where a counter measured it. Return joules for a token."""
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


def _from_bandwidth(bandwidth: Spread | None, measured: Iterable[FormatRate]) -> Spread | None:
    """Return what a format that was not measured may reach: between the slowest and the fastest measured ones."""
    known = [rate.decode_bytes_per_second for rate in measured]
    if known:
        middle = sorted(spread.median for spread in known)[len(known) // 2]
        return Spread(middle, min(spread.low for spread in known), max(spread.high for spread in known))
    if bandwidth is None:
        return None
    return Spread(
        bandwidth.median * _OF_BANDWIDTH.median, bandwidth.low * _OF_BANDWIDTH.low, bandwidth.high * _OF_BANDWIDTH.high
    )


def _handling_seconds(layers: int, measured: StepCost | None, threads: int) -> Spread:
    """Return the seconds that a token takes beyond reading weights, looking back and choosing a token."""
    if measured is None:
        return _times(layers, _LAYER_SECONDS)
    seconds = layers * measured.layer_seconds + (measured.token_seconds if layers else 0.0)
    # of another number of threads: the work is shared by more or fewer, or not at all
    share = measured.threads / threads
    return Spread(seconds, 0.6 * seconds * min(1.0, share), 1.7 * seconds * max(1.0, share))


def _looking_back_seconds(
    shape: ModelShape,
    layers: Iterable[int],
    filled_tokens: int,
    plan: RunningPlan,
    device: _Device,
    measured: StepCost | None,
    threads: int,
) -> Spread:
    """Return the seconds that looking back at the text takes for one token in these layers: its numbers are read, and
    multiplied for every head of the query."""
    caches = [(shape.layers or ())[layer] for layer in layers]
    cached = sum(cache.read_bytes(filled_tokens, plan.key_type, plan.value_type) for cache in caches)
    reading = device.bandwidth or next((rate.decode_bytes_per_second for rate in device.rates.values()), None)
    seconds = _over(cached, reading) if reading else _NO_TIME
    if device.name == "the GPU" and measured is None:
        return seconds  # it multiplies faster than it reads
    seen = sum(
        busiest_tokens(
            min(filled_tokens, cache.window_tokens or filled_tokens), threads, half_precision=plan.key_type == "F16"
        )
        for cache in caches
        if cache.key_width
    )
    each = _ATTENTION_SECONDS
    if measured is not None and measured.attention_seconds is not None:
        each = Spread(measured.attention_seconds, 0.6 * measured.attention_seconds, 1.6 * measured.attention_seconds)
    return _plus(seconds, _times(shape.query * seen, each))


def _times(count: float, each: Spread) -> Spread:
    return Spread(count * each.median, count * each.low, count * each.high)


def _over(amount: float, rate: Spread) -> Spread:
    """Return seconds: low is the shortest time."""
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
        reason = f"{reason}; adjusted by {counted(correction.runs, 'real run')} here"
    else:
        low, high = 1 / seconds.high / drift, 1 / seconds.low * drift
    if busy > _NOTABLY_BUSY:
        reason = f"{reason}; other programs were running during the benchmark: repeat it when they are not"
    return Prediction(value, low, high, reason)


def _busy_share(profile: Profile) -> float:
    """Return the share of its cores that other programs used while it was measured, from 0 to 1."""
    cores = profile.facts.processor.usable_cores.value or profile.facts.processor.logical_cores.value or 1
    return min(1.0, (profile.busy_cores or 0.0) / max(1.0, cores))


def _reason(what: str, guessed: list[str], threads: int) -> str:
    plural = "" if threads == 1 else "s"
    unsure = f" ({', '.join(sorted(guessed))} was not measured: estimated)" if guessed else ""
    return f"{what}, with {threads} thread{plural}{unsure}"
