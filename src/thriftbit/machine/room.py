"""How much memory there is for a model: main memory, and that of the GPU.

llama.cpp leaves some of the GPU's memory alone, and so do we. A GPU that the built-in llama.cpp does not compute on
counts as none. Where the layers are known, `placement.py` counts them; where only a size is known (a name on the Hub),
`Room.fits` compares it with the same memory.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Literal

from thriftbit.machine.detect import facts_of
from thriftbit.machine.facts import Fact, Facts, Gpu, engine_devices, unknown
from thriftbit.machine.surroundings import LiveSurroundings

Fits = Literal["yes", "tight", "no", "needs a GPU", "needs a Mac", "unknown"]

GPU_MARGIN_BYTES = 1 << 30  # llama.cpp's own default for what it leaves free
_SYSTEM_BYTES = 1_500_000_000  # what an idle system and a browser keep
_LEAST_LEFT_BYTES = 500_000_000  # of what is free now, so that nothing else comes to a stop
_LEFT_SHARE = 0.05
_ROOM_SHARE, _ROOM_BYTES = 0.1, 500_000_000  # beside the weights, where only their size is known


@dataclass(frozen=True)
class Room:
    """main: bytes of main memory for the model; None where it is not known. gpu: of the best GPU; 0 without one.
    shared: whether both are the same memory. words: how the numbers came about. main_when_idle, gpu_when_idle: the same
    when other programs are closed; None where that is not known. is_mac: a computer with Apple's own processor.
    unused_gpu: the name of a GPU that is there, and of no use to the built-in llama.cpp."""

    main: int | None
    gpu: int
    gpu_name: str
    shared: bool
    words: str
    main_when_idle: int | None = None
    gpu_when_idle: int = 0
    is_mac: bool = False
    unused_gpu: str = ""

    @property
    def free_bytes(self) -> int | None:
        """For one model, in all memories together."""
        return _together(self.main, self.gpu, self.shared)

    @property
    def most_bytes(self) -> int | None:
        """The same when other programs are closed."""
        return _together(self.main_when_idle, self.gpu_when_idle, self.shared)

    def fits(self, needed_bytes: int | None, needs: str | None = None) -> Fits:
        """needs: "GPU" or "Mac", for what runs on nothing else. -> "tight": only when other programs are closed"""
        free, most = self.free_bytes, self.most_bytes
        if needs == "Mac" and not self.is_mac:
            return "needs a Mac"
        if needs == "GPU":
            if not max(self.gpu, self.gpu_when_idle) or self.shared:
                return "needs a GPU"
            free, most = self.gpu, self.gpu_when_idle
        if needed_bytes is None or free is None:
            return "unknown"
        if needed_bytes <= free:
            return "yes"
        return "tight" if most is not None and needed_bytes <= most else "no"


def room_here() -> Room:
    """Return the room on this computer now."""
    nowhere: Fact[int] = unknown("is not asked for", "")
    return room_in(facts_of(LiveSurroundings(), "", nowhere, nowhere), None, is_here=True)


def room_in(facts: Facts, leave_free_bytes: int | None, *, is_here: bool) -> Room:
    """is_here: whether it is this computer, of which the memory that is free now counts; of another, all but what a
    system takes"""
    total, available = facts.memory.total_bytes.value, facts.memory.available_bytes.value
    here_now = is_here and available is not None
    idle = None if total is None else total - min(_SYSTEM_BYTES, total // 4)
    usable = available if here_now else idle
    left = leave_free_bytes
    if left is None:
        least = 0 if facts.memory.limit_bytes.value else _LEAST_LEFT_BYTES  # in a container nothing else needs any
        left = max(least, round(_LEFT_SHARE * (total or 0))) if here_now else 0
    main = None if usable is None else max(0, usable - left)
    best = max(facts.gpus, key=_free_on, default=None)
    gpu = best if engine_devices(facts) != () else None
    gpu_bytes = max(0, _free_on(gpu) - GPU_MARGIN_BYTES) if gpu else 0
    gpu_idle = max(0, max(gpu.memory_bytes.value or 0, _free_on(gpu)) - GPU_MARGIN_BYTES) if gpu else 0
    return Room(
        main,
        gpu_bytes,
        (gpu.name.value or gpu.vendor) if gpu and gpu_bytes else "",
        bool(gpu and gpu.shared.value),
        "free now" if here_now else "of its memory, less what the system takes",
        main if idle is None else max(idle, main or 0),
        gpu_idle,
        platform.system() == "Darwin" and platform.machine() == "arm64" and is_here,
        (best.name.value or best.vendor) if best and not gpu_bytes else "",
    )


def estimated_need(size_bytes: int) -> int:
    """Return what running weights of that size takes with a conversation of 4,096 tokens, about: a tenth and half a
    gigabyte more, which covers the common families."""
    return round(size_bytes * (1 + _ROOM_SHARE)) + _ROOM_BYTES


def _free_on(gpu: Gpu) -> int:
    return gpu.free_bytes.value or gpu.memory_bytes.value or 0


def _together(main: int | None, gpu: int, shared: bool) -> int | None:
    """Return the bytes of both memories together, since a model's layers may be divided between them."""
    if shared or not gpu:
        return main
    return gpu if main is None else main + gpu
