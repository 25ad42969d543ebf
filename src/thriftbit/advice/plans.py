"""How a model of one precision would run on a computer: the types of its cache and its place, chosen together.

A cache in F16 loses nothing. One of fewer bits is taken where the model does not fit otherwise, and where it loses next
to nothing and the model gets into a faster place for it. Between precisions it is the sum of both losses that counts
(`choice.py`): so with a long context, an 8-bit cache is taken rather than worse weights where it loses less.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from thriftbit.advice.cache_loss import cache_loss
from thriftbit.errors import UsageError
from thriftbit.machine.kv_cache import cache_type_problem
from thriftbit.machine.memory_needed import MemoryNeeded, memory_needed
from thriftbit.machine.model_shape import ModelShape
from thriftbit.machine.placement import Placement, place
from thriftbit.machine.prediction import Prediction
from thriftbit.machine.room import Room
from thriftbit.machine.running_plan import NO_DRAFT, PlanWishes, RunningPlan

_TRIED = ("F16", "Q8_0", "Q4_0")  # what lies between them is rarely offered by kernels on GPUs
_FOR_ASKED = "Q4_0"  # only for a context that somebody asked for; otherwise a shorter one is the milder way
_NEXT_TO_NOTHING = 0.005  # that a cache may lose, at worst, for a faster place
_TOO_MUCH = 0.05  # of a cache that nobody asked for: a shorter context or other weights are seen, this is not
_SPEED_OF = {"GPU": 3, "experts": 2, "partly": 1, "CPU": 0, "no": -1, "unknown": -1}


@dataclass(frozen=True)
class Running:
    """A plan for one precision, with what it needs, where it goes and what its cache loses."""

    plan: RunningPlan
    memory: MemoryNeeded
    place: Placement
    cache_loss: Prediction


def best_plan(
    shape: ModelShape,
    architecture: str,
    context_tokens: int,
    room: Room,
    instruction_sets: Sequence[str],
    wishes: PlanWishes,
    *,
    is_asked_for: bool = True,
) -> Running:
    """wishes: what is decided already. is_asked_for: whether somebody wants that much context. Return the plan that
    loses least of those that fit; where none does, the one that needs least. Raises UsageError for a type of the cache
    that this architecture cannot take."""
    found: list[Running] = []
    for key_type, value_type in cache_types(shape, architecture, wishes):
        lost = cache_loss(architecture, key_type, value_type, context_tokens)
        is_free = not (wishes.key_type or wishes.value_type)
        if found and is_free and ((lost.value or 0.0) > _TOO_MUCH or (key_type == _FOR_ASKED and not is_asked_for)):
            continue
        plan = RunningPlan(context_tokens, key_type, value_type, draft=wishes.draft or NO_DRAFT)
        memory = memory_needed(
            shape, context_tokens, key_type=key_type, value_type=value_type, instruction_sets=instruction_sets
        )
        where = place(shape, memory, room, plan, wishes)
        plan = replace(plan, gpu_layers=where.gpu_layers if room.gpu else None, expert_layers=where.expert_layers)
        found.append(Running(plan, memory, where, lost))
    found.sort(key=lambda each: each.cache_loss.value or 0.0)
    fitting = [each for each in found if each.place.fits]
    if not fitting:
        return found[-1]
    best = fitting[0]
    for other in fitting[1:]:
        is_cheap = (other.cache_loss.high or 0.0) <= _NEXT_TO_NOTHING
        if is_cheap and _SPEED_OF[other.place.where] > _SPEED_OF[best.place.where]:
            best = other
    return best


def cache_types(shape: ModelShape, architecture: str, wishes: PlanWishes) -> Iterator[tuple[str, str]]:
    """Yield types of keys and values to try. Where nothing is decided, both are the same."""
    if wishes.key_type and wishes.value_type:
        pairs = [(wishes.key_type, wishes.value_type)]
    elif wishes.key_type:
        pairs = [(wishes.key_type, other) for other in dict.fromkeys((*_TRIED, wishes.key_type))]
    elif wishes.value_type:
        pairs = [(other, wishes.value_type) for other in dict.fromkeys((*_TRIED, wishes.value_type))]
    else:
        pairs = [(each, each) for each in _TRIED]
    problems = {pair: cache_type_problem(shape, *pair) for pair in pairs}
    possible = [pair for pair in pairs if not problems[pair]]
    if not possible:
        key_type, value_type = pairs[0]
        raise UsageError(
            f"a cache with keys in {key_type} and values in {value_type} is not possible for {architecture}: "
            f"{problems[pairs[0]]}; leave --cache-type-k and --cache-type-v to auto"
        )
    if any(layer.key_width for layer in shape.layers or ()):
        yield from possible
    else:
        yield possible[0]  # nothing grows with the text, so there is nothing to gain
