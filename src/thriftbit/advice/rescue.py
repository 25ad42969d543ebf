"""Nothing fits: what would. A smaller context, less left free, more memory, or a smaller model. (A cache of fewer bits
was tried before, unless somebody decided against it.)"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from thriftbit.advice.options import Option
from thriftbit.advice.wishes import Wishes
from thriftbit.machine.room import Room
from thriftbit.machine.running_plan import PlanWishes
from thriftbit.sizes import describe_bytes, describe_count

_SMALLEST_CONTEXT = 1024
# Bits per weight of Q4_K_M; memory of the cache and the program with a short context
_USUAL_BITS, _OVERHEAD_BYTES = 4.85, 1_000_000_000


def what_would_fit(
    evaluate: Callable[[Wishes], Sequence[Option]], wishes: Wishes, room: Room, context_tokens: int
) -> list[str]:
    """Return sentences on what would fit, the mildest first.

    evaluate: gives the options for other wishes. context_tokens: the context that was planned for."""
    sentences = list(_other_settings(evaluate, wishes, context_tokens))
    options = evaluate(wishes)
    as_made = [option for option in options if option.native]
    smallest = min(as_made or options, key=lambda option: option.size.value or 0.0, default=None)
    if smallest is not None and smallest.memory.lasting.value is not None and room.main is not None:
        needed = round(smallest.memory.lasting.value)
        named = f"{smallest.name}, which keeps the weights as they are," if as_made else f"even {smallest.name}"
        sentences.append(
            f"A computer with more memory: {named} needs {describe_bytes(needed)} of memory, "
            f"and only {describe_bytes(room.main)} is available."
        )
    if room.main is not None:
        parameters = round(8 * max(0, max(room.main, room.gpu) - _OVERHEAD_BYTES) / _USUAL_BITS)
        if parameters > 100_000_000:
            sentences.append(
                f"A smaller model of the same family: up to {describe_count(parameters)} parameters fit in Q4_K_M."
            )
    return sentences


def _other_settings(
    evaluate: Callable[[Wishes], Sequence[Option]], wishes: Wishes, context_tokens: int
) -> Iterator[str]:
    free = replace(wishes, running=PlanWishes())
    if free != wishes and (best := _largest(evaluate(free))):
        yield f"Leave the cache and the placement to the search: then {best.name} fits, with {best.plan.describe()}."
        return
    shorter = context_tokens
    while shorter > _SMALLEST_CONTEXT:
        shorter //= 2
        if best := _largest(evaluate(replace(free, context_tokens=shorter))):
            yield f"A shorter context (--context {shorter}): then {best.name} fits."
            return
    if wishes.leave_free_bytes and (best := _largest(evaluate(replace(wishes, leave_free_bytes=0)))):
        yield f"Leave no memory free: then {best.name} fits, but close other programs first."


def _largest(options: Sequence[Option]) -> Option | None:
    return max((option for option in options if option.fits), key=lambda option: option.bits_per_weight, default=None)
