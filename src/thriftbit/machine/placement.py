"""Where a model goes: on the GPU, on it but for experts, partly on it, in the main memory, or nowhere.

llama.cpp puts whole layers on a GPU, the last ones first, each with its part of the cache. The token embedding always
stays in the main memory. Of a mixture of experts, each token reads a few experts and all of the attention, so where not
everything fits, the experts of the first layers stay in main memory and all the rest goes on the GPU. That is far
faster than whole layers in main memory.

Left out: several GPUs, of which the one with the most free memory counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from thriftbit.containers.entry import Entry
from thriftbit.machine.memory_needed import MemoryNeeded
from thriftbit.machine.model_shape import ModelShape, is_of_experts, layer_of
from thriftbit.machine.room import Room
from thriftbit.machine.running_plan import NO_WISHES, PlanWishes, RunningPlan

Where = Literal["GPU", "experts", "partly", "CPU", "no", "unknown"]


@dataclass(frozen=True)
class Placement:
    """where: the verdict. gpu_layers of layers: that the GPU takes, counting the output as one. gpu_bytes, main_bytes:
    that it takes there. expert_layers: the first ones on the GPU whose experts are in main memory."""

    where: Where
    gpu_layers: int
    layers: int
    gpu_bytes: int
    main_bytes: int
    expert_layers: int = 0

    @property
    def fits(self) -> bool:
        return self.where not in ("no", "unknown")

    def is_layer_on_gpu(self, layer: int) -> bool:
        return layer > self.layers - self.gpu_layers

    def is_on_gpu(self, entry: Entry) -> bool:
        layer = layer_of(entry)
        if layer is None:
            return self.gpu_layers > 0 and not entry.name.startswith(("token_", "position_", "per_layer_token_"))
        return self.is_layer_on_gpu(layer) and not (is_of_experts(entry) and layer < self.expert_layers)


def place(
    shape: ModelShape, memory: MemoryNeeded, room: Room, plan: RunningPlan, wishes: PlanWishes = NO_WISHES
) -> Placement:
    """memory: that the plan needs. plan: for its context and the types of its cache. Return where it goes, the fastest
    place first; one with the verdict "no" if it fits nowhere, or not as wished."""
    layers = len(shape.layers or ())
    if memory.cache is None or memory.lasting.high is None or memory.lasting.value is None or room.main is None:
        return Placement("unknown", 0, layers, 0, memory.weights)
    unsure = round(memory.lasting.high - memory.lasting.value)
    sums = _Sums(shape, memory, plan)
    for gpu_layers, expert_layers in _candidates(shape, room, wishes):
        found = sums.placed(gpu_layers, expert_layers, unsure)
        in_main = found.main_bytes <= room.main or (room.shared and found.where == "GPU")
        if in_main and (not gpu_layers or found.gpu_bytes <= room.gpu):
            return found
    return Placement("no", 0, layers, 0, round(memory.lasting.high))


def _candidates(shape: ModelShape, room: Room, wishes: PlanWishes) -> Iterator[tuple[int, int]]:
    """Yield layers on the GPU, and layers whose experts are in main memory; the fastest first."""
    layers = len(shape.layers or ())
    whole = layers + 1
    if wishes.gpu_layers is not None:
        yield min(wishes.gpu_layers, whole), 0
        return
    if wishes.expert_layers is not None:
        yield whole, min(wishes.expert_layers, layers)
        return
    if room.gpu and not wishes.experts_in_main:
        yield whole, 0
    if wishes.all_on_gpu:
        return
    if room.gpu and shape.is_mixture and not room.shared:
        yield from ((whole, count) for count in range(1, layers + 1))
    if wishes.experts_in_main:
        return
    if room.gpu and not room.shared:
        yield from ((count, 0) for count in range(layers, 0, -1))
    yield 0, 0


class _Sums:
    """Bytes of layers, added up from the last to the first, so that every candidate is a look-up"""

    def __init__(self, shape: ModelShape, memory: MemoryNeeded, plan: RunningPlan) -> None:
        caches = shape.layers or ()
        self._memory, self._layers = memory, len(caches)
        dense, experts = [0] * self._layers, [0] * self._layers
        self._output = 0
        for entry in shape.entries:
            layer = layer_of(entry)
            if layer is None:
                is_output = entry.name.startswith("output") or (shape.is_tied and entry.name.startswith("token_embd"))
                self._output += entry.size_bytes * is_output
            elif layer < self._layers:
                (experts if is_of_experts(entry) else dense)[layer] += entry.size_bytes
        kept = [cache.size_bytes(plan.context_tokens, plan.key_type, plan.value_type) for cache in caches]
        whole = (d + e + k for d, e, k in zip(dense, experts, kept, strict=True))
        self._last = [0, *accumulate(reversed(list(whole)))]  # of so many layers, with their caches
        self._experts = [0, *accumulate(experts)]  # of so many of the first
        self._is_tied = shape.is_tied

    def placed(self, gpu_layers: int, expert_layers: int, unsure: int) -> Placement:
        memory = self._memory
        needed = memory.weights + (memory.cache or 0) + memory.compute + memory.other + unsure
        if not gpu_layers:
            return Placement("CPU", 0, self._layers, 0, needed)
        moved = self._output + self._last[gpu_layers - 1] - self._experts[expert_layers]
        is_whole = gpu_layers == self._layers + 1 and not expert_layers
        main = needed - moved + self._output * self._is_tied - memory.compute * is_whole  # of tied ones a copy is moved
        where: Where = "GPU" if is_whole else "experts" if expert_layers else "partly"
        gpu = moved + memory.compute + memory.gpu_scratch
        return Placement(where, gpu_layers, self._layers, gpu, main, expert_layers)
