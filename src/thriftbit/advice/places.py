"""Whether a model fits, and where: on the GPU, partly on it, in the main memory, or nowhere.

llama.cpp puts whole layers on a GPU, the last ones first, each with its part of the cache; the token embedding always
stays in the main memory. It leaves some of the GPU's memory alone, and so do we.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from thriftbit.machine.facts import Facts, Gpu
from thriftbit.machine.memory_needed import MemoryNeeded
from thriftbit.machine.model_shape import ModelShape

Where = Literal["GPU", "partly", "CPU", "no", "unknown"]

GPU_MARGIN_BYTES = 1 << 30  # llama.cpp's own default for what it leaves free
_SYSTEM_BYTES = 1_500_000_000  # what an idle system and a browser keep, on a computer that is not this one
_LEAST_LEFT_BYTES = 500_000_000
_LEFT_SHARE = 0.05
_LAYER = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True)
class Room:
    """main: bytes of main memory for the model; None where it is not known. gpu: of the best GPU; 0 without one.
    shared: whether both are the same memory. words: how the numbers came about."""

    main: int | None
    gpu: int
    gpu_name: str
    shared: bool
    words: str


@dataclass(frozen=True)
class Place:
    """where: the verdict. gpu_layers of layers: that the GPU takes. gpu_bytes, main_bytes: that it takes there."""

    where: Where
    gpu_layers: int
    layers: int
    gpu_bytes: int
    main_bytes: int


def room_in(facts: Facts, leave_free_bytes: int | None, *, is_here: bool) -> Room:
    """is_here: whether it is this computer, of which the memory that is free now counts; of another, all but what a
    system takes"""
    total, available = facts.memory.total_bytes.value, facts.memory.available_bytes.value
    here_now = is_here and available is not None
    usable = available if here_now else None if total is None else total - min(_SYSTEM_BYTES, total // 4)
    left = leave_free_bytes
    if left is None:
        least = 0 if facts.memory.limit_bytes.value else _LEAST_LEFT_BYTES  # in a container nothing else needs any
        left = max(least, round(_LEFT_SHARE * (total or 0))) if here_now else 0
    main = None if usable is None else max(0, usable - left)
    gpu = max(facts.gpus, key=_gpu_bytes, default=None)
    gpu_bytes = max(0, _gpu_bytes(gpu) - GPU_MARGIN_BYTES) if gpu else 0
    name = (gpu.name.value or gpu.vendor) if gpu and gpu_bytes else ""
    words = "free now" if here_now else "of its memory, less what the system takes"
    return Room(main, gpu_bytes, name, bool(gpu and gpu.shared.value), words)


def place(shape: ModelShape, memory: MemoryNeeded, room: Room) -> Place:
    """-> where a model with this shape goes, and how much of it"""
    layers = len(shape.layers or ())
    if memory.cache is None or memory.lasting.high is None or room.main is None:
        return Place("unknown", 0, layers, 0, memory.weights)
    needed = round(memory.lasting.high)
    on_gpu, gpu_bytes = _gpu_share(shape, memory, room.gpu)
    if room.gpu and on_gpu == layers + 1:
        rest = max(0, needed - gpu_bytes)
        if room.shared or rest <= room.main:
            return Place("GPU", on_gpu, layers, gpu_bytes, rest)
    rest = max(0, needed - gpu_bytes)
    if room.gpu and on_gpu > 0 and not room.shared and rest <= room.main:
        return Place("partly", on_gpu, layers, gpu_bytes, rest)
    return Place("CPU" if needed <= room.main else "no", 0, layers, 0, needed)


def _gpu_share(shape: ModelShape, memory: MemoryNeeded, gpu_bytes: int) -> tuple[int, int]:
    """-> how many layers, the output among them, fit into a GPU's memory, and the bytes they take there"""
    by_layer, output = [0] * len(shape.layers or ()), 0
    for entry in shape.entries:
        match = _LAYER.match(entry.name)
        if match and int(match[1]) < len(by_layer):
            by_layer[int(match[1])] += entry.size_bytes
        elif entry.name.startswith("output") or (shape.is_tied and entry.name.startswith("token_embd")):
            output += entry.size_bytes
    cached = (memory.cache or 0) / max(1, len(by_layer))
    taken, count = float(memory.compute), 0
    for size in [output, *reversed(by_layer)]:
        step = size + (cached if count else 0)
        if taken + step > gpu_bytes:
            break
        taken, count = taken + step, count + 1
    return (count, round(taken)) if count else (0, 0)


def _gpu_bytes(gpu: Gpu) -> int:
    return gpu.free_bytes.value or gpu.memory_bytes.value or 0
