"""Turns a person's request for a file into the limits of an allocation.

"Fits here" and "at least 10 tokens/s" become bytes and seconds, because this computer is known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from thriftbit.advice.wishes import DEFAULT_CONTEXT_TOKENS
from thriftbit.errors import ThriftbitError, UsageError
from thriftbit.machine.facts import Facts
from thriftbit.machine.memory_needed import memory_needed
from thriftbit.machine.model_shape import ModelShape, shape_of
from thriftbit.machine.predict import NOT_MEASURED, decode_rate
from thriftbit.machine.profile import Profile, stored_profile
from thriftbit.machine.room import room_in
from thriftbit.quantization.allocation import Budget, CannotFitError
from thriftbit.quantization.gguf_file import file_layout
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.presets import PRESETS
from thriftbit.sizes import describe_bytes
from thriftbit.sources.model import Model

MODELLED = "Q8_0"  # costs that do not depend on the precision are computed at this one


class NotMeasuredError(ThriftbitError):
    """The answer depends on this computer's speed, which was not measured."""

    exit_code = 4


@dataclass(frozen=True)
class Request:
    """What a person asks of a file; None or False where nothing is asked.

    size_bytes: of the file at most. bits_per_weight: at most.
    max_loss: the share by which perplexity may rise. fits: whether it has to fit into this computer's memory, with
    context_tokens of text. tokens_per_second: the least speed of writing."""

    size_bytes: int | None = None
    bits_per_weight: float | None = None
    max_loss: float | None = None
    fits: bool = False
    context_tokens: int | None = None
    tokens_per_second: float | None = None

    def __bool__(self) -> bool:
        limits = (self.size_bytes, self.bits_per_weight, self.max_loss, self.tokens_per_second)
        return self.fits or any(limit is not None for limit in limits)

    def check(self) -> None:
        """Raise UsageError for a request that contradicts itself, before anything long begins."""
        if self.size_bytes is not None and self.bits_per_weight is not None:
            raise UsageError("--size and --bpw are the same budget; give one of them")
        if self.fits and self.bits_per_weight is not None:
            raise UsageError("--fits and --bpw are the same budget; give one of them")
        if self.context_tokens is not None and not self.fits:
            raise UsageError("--context says how much text has to fit; it goes with --fits")


def budget_for(model: Model, request: Request, facts: Facts | None = None) -> Budget:
    """Return the limits that the request means for this model on this computer.

    facts: of this computer; found out if they are needed and not given.

    Raises CannotFitError if no file fits into memory, NotMeasuredError for a speed if this computer was not measured,
    and UsageError for a request that contradicts itself."""
    request.check()
    if facts is None and (request.fits or request.tokens_per_second is not None):
        from thriftbit.machine.detect import detect

        facts = detect()
    size_bytes, seconds, rates = request.size_bytes, None, None
    if request.fits and facts is not None:
        largest_bytes = _largest_file(model, facts, request.context_tokens)
        size_bytes = min(size_bytes or largest_bytes, largest_bytes)
    if request.tokens_per_second is not None and facts is not None:
        rates, seconds = _speed(model, stored_profile(facts), request.tokens_per_second)
    return Budget(size_bytes, request.bits_per_weight, request.max_loss, seconds, rates)


def _largest_file(model: Model, facts: Facts, context_tokens: int | None) -> int:
    """Return the bytes of the largest file that fits into memory: main memory or the GPU's, whichever is larger."""
    plan = make_plan(model, MODELLED)
    shape = shape_of(model.architecture, model.metadata, plan.entries(model))
    context = min(context_tokens or DEFAULT_CONTEXT_TOKENS, shape.context_tokens or DEFAULT_CONTEXT_TOKENS)
    needed = memory_needed(shape, context, instruction_sets=facts.processor.instruction_sets.value or ())
    room = room_in(facts, None, is_here=True)
    if room.main is None or needed.lasting.high is None:
        raise NotMeasuredError(
            f"--fits: {needed.lasting.reason if room.main else 'free memory is not known'}; say --size"
        )
    beside = needed.lasting.high - needed.weights
    left = max(room.main, room.gpu) - beside
    if left <= 0:
        raise CannotFitError(
            f"{model.source}: {describe_bytes(max(room.main, room.gpu))} of memory are {room.words}; a context of "
            f"{context:,} tokens takes {describe_bytes(round(beside))} beside the weights; shorten --context"
        )
    outside_weights = file_layout(model, plan).file_size_bytes - plan.weights_bytes(model)
    return math.floor(left) + outside_weights


def _measured_shape(model: Model, rates: Mapping[str, float]) -> ModelShape:
    """Return the shape of the model in Q8_0, or if Q8_0 was not measured, in the first format that was."""
    for preset in (MODELLED, *PRESETS):
        if PRESETS[preset].most in rates:
            return shape_of(model.architecture, model.metadata, make_plan(model, preset).entries(model))
    raise NotMeasuredError(f"--min-speed: {NOT_MEASURED}")


def _speed(model: Model, profile: Profile | None, tokens_per_second: float) -> tuple[dict[str, float], float]:
    """Return the bytes per second of each format, and the seconds that reading the weights for a token may take. These
    are the seconds of a token, less the part that does not depend on the precision."""
    if profile is None or not profile.rates:
        raise NotMeasuredError(f"--min-speed: {NOT_MEASURED}")
    threads = profile.best_threads or profile.rates[0].threads
    rates = {rate.format: rate.decode_bytes_per_second.median for rate in profile.rates if rate.threads == threads}
    shape = _measured_shape(model, rates)
    predicted = decode_rate(shape, profile)
    if predicted.value is None:
        raise NotMeasuredError(f"--min-speed: {predicted.reason}")
    of_weights = sum(size / rates[name] for name, size in shape.bytes_per_token().items() if name in rates)
    left = 1 / tokens_per_second - (1 / predicted.value - of_weights)
    if left <= 0:
        raise CannotFitError(
            f"{model.source}: {tokens_per_second:g} tokens/s are out of reach here: the work that is the same at every "
            f"precision takes {1000 * (1 / tokens_per_second - left):.2g} ms a token; ask for less"
        )
    return rates, left
