"""What a computer's facts and rates mean for somebody who has a model in mind and does not know what a Q4_K is.

A typical model of seven billion weights serves as the example: how large its file is in each format, whether that fits,
and how fast it would be, predicted from the rates measured here. `thriftbit fit` answers exactly for a given model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from thriftbit.machine.profile import FormatRate, Profile, Spread
from thriftbit.machine.rates import busiest_tokens
from thriftbit.sizes import describe_bytes

TYPICAL_WEIGHTS, TYPICAL_LAYERS, TYPICAL_QUERY = 7_000_000_000, 32, 4096
TEXT_TOKENS = 512  # so far, as `fit` has it
_SHOWN = {
    "F16": "16 bits",
    "Q8_0": "8 bits",
    "Q6_K": "6 bits",
    "Q5_K": "5 bits",
    "Q4_K": "4 bits",
    "Q3_K": "3 bits",
    "Q2_K": "2 bits",
}
_READING_PACE = 5  # tokens/s: 250 words per minute, at a little more than a token for each word
PREDICTION_ERROR = 0.25
"""Of these rates, for models whose weights are most of the work: one of 1.5 billion weights was slower by 19% in the
median of five formats on a machine at rest (docs/lab-notes.md). Small models are off by more; they are not shown."""
_ROOM = 0.9  # of the memory, for weights; the rest is for the conversation and the computation


@dataclass(frozen=True)
class Outlook:
    """A typical model in one format, here. fits: into what is free now; None if that is not known. Rates are predicted,
    in tokens/s."""

    format: str
    plainly: str
    size_bytes: int
    fits: bool | None
    writes: Spread
    reads: Spread


def outlooks(profile: Profile) -> list[Outlook]:
    """Return those of the most common formats that were measured with the best number of threads."""
    rates = {rate.format: rate for rate in profile.rates if rate.threads == profile.best_threads}
    return [_outlook(profile, rates[name]) for name in _SHOWN if name in rates]


def sentences(profile: Profile) -> Iterator[str]:
    """Return what the facts and rates mean, in sentences for a beginner."""
    room = room_bytes(profile)
    if room is None:
        yield "How much memory is free is not known here, so neither is what fits."
    else:
        yield f"A model of up to about {describe_bytes(int(_ROOM * room))} fits into what is free now."
    four_bits = next((each for each in outlooks(profile) if each.format == "Q4_K"), None)
    if four_bits:
        fits = {True: "fits and ", False: "does not fit; if it did, it ", None: ""}[four_bits.fits]
        yield (
            f"A model of 7 billion weights in 4 bits ({describe_bytes(four_bits.size_bytes)}) {fits}would write about "
            f"{four_bits.writes.median:.2g} tokens/s, {_judged(four_bits.writes.median)}."
        )


def _judged(tokens_per_second: float) -> str:
    pace = tokens_per_second / _READING_PACE
    how = "slower than" if pace < 0.8 else "faster than" if pace > 1.25 else "about as fast as"
    return f"{how} most people read"


def room_bytes(profile: Profile) -> int | None:
    """Return the memory that is free where models run: the GPUs' if llama.cpp computes on them, otherwise the main
    memory."""
    if profile.device not in ("", "CPU"):
        free = [gpu.free_bytes.value or gpu.memory_bytes.value for gpu in profile.facts.gpus]
        known = [size for size in free if size]
        if known:
            return sum(known)
    return profile.facts.memory.available_bytes.value


def _outlook(profile: Profile, rate: FormatRate) -> Outlook:
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[rate.format]]
    size_bytes = TYPICAL_WEIGHTS * size // block
    steps = next((cost for cost in profile.step_costs if cost.threads == rate.threads), None)
    apart = TYPICAL_LAYERS * steps.layer_seconds + steps.token_seconds if steps else 0.0
    seen = busiest_tokens(TEXT_TOKENS, rate.threads)
    apart += TYPICAL_LAYERS * TYPICAL_QUERY * seen * ((steps and steps.attention_seconds) or 0.0)
    room = room_bytes(profile)
    return Outlook(
        format=rate.format,
        plainly=_SHOWN[rate.format],
        size_bytes=size_bytes,
        fits=None if room is None else size_bytes <= _ROOM * room,
        writes=_mapped(rate.decode_bytes_per_second, lambda bytes_rate: 1 / (size_bytes / bytes_rate + apart)),
        reads=_mapped(rate.prefill_weights_per_second, lambda weights_rate: weights_rate / TYPICAL_WEIGHTS),
    )


def _mapped(spread: Spread, function: Callable[[float], float]) -> Spread:
    """Return the spread of an increasing function."""
    return Spread(function(spread.median), function(spread.low), function(spread.high))
