"""How many threads llama.cpp runs fastest with, here and now: found by trying.

No rule knows it. Logical cores help one processor and hurt another; slow cores hold up fast ones; and llama.cpp's
threads wait for one another by spinning, so one thread too many on a busy machine makes it many times slower. So a
short answer is written with all physical cores (where fewer are idle, with those first), with all logical ones, then
with half as many as long as that is faster. Among equally fast numbers the smallest wins, as it leaves cores to the
user. Numbers far above the idle cores are not tried: on two busy cores two threads took a second for a token, and one
thread took 10 ms.

One number serves for reading and for writing. Reading could use more threads where memory limits writing, but whoever
runs the model sets one number as well.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import psutil

from thriftbit.machine.cgroups import core_quota
from thriftbit.machine.identity import describe_machine
from thriftbit.machine.surroundings import LiveSurroundings
from thriftbit.runtime.chat_template import NOT_CHATTING
from thriftbit.runtime.engine import Engine

_CONTEXT_TOKENS = 256
_PROMPT = [1, 2, 3, 4, 5, 6, 7, 8]  # any tokens do
_SAMPLES_TOKENS = (4, 16, 16)  # the first says whether there is time for the others
_SLOW_SECONDS = 1.0
_EQUALLY_FAST = 0.97
_NO_LONGER_FASTER = 0.9
_MAY_BE_FASTEST = 0.5
_LOOK_SECONDS = 0.5


def choose_threads(path: Path, *, patience_seconds: float) -> int:
    """path: the file to try with; the smaller the quicker. patience_seconds: after which no third number is tried.
    Raises ThriftbitError if the file cannot be run."""
    deadline = time.monotonic() + patience_seconds
    physical, logical = _cores()
    candidates = numbers_to_try(physical, logical, _idle_cores(logical))
    if len(candidates) == 1:
        return candidates[0]
    rates: dict[int, float] = {}
    for threads in candidates:
        rates[threads] = _writing_rate(path, threads)
        slower = rates[threads] < _NO_LONGER_FASTER * max(rates.values())
        if len(rates) > 1 and (time.monotonic() > deadline or (slower and threads < physical)):
            break
    for threads in rates:  # once more: a moment's work of others must not decide for long
        if len(rates) > 1 and rates[threads] >= _MAY_BE_FASTEST * max(rates.values()):
            rates[threads] = max(rates[threads], _writing_rate(path, threads))
    return min(threads for threads, rate in rates.items() if rate >= _EQUALLY_FAST * max(rates.values()))


def numbers_to_try(physical: int, logical: int, idle: int) -> list[int]:
    """physical, logical, idle: numbers of cores. Returns numbers of threads, the likely ones first."""
    halves = (physical >> step for step in range(1, physical.bit_length()))
    numbers = dict.fromkeys((min(idle, physical), physical, logical, *halves))
    return [threads for threads in numbers if 0 < threads <= 2 * idle + 1] or [1]


def _writing_rate(path: Path, threads: int) -> float:
    """Return tokens/s: the best of a few answers, because other programs can only slow an answer down."""
    rates = []
    with Engine(path, context_tokens=_CONTEXT_TOKENS, threads=threads, chat_template=NOT_CHATTING) as engine:
        engine.generate(_PROMPT, max_tokens=1, temperature=0)
        for tokens in _SAMPLES_TOKENS:
            answer = engine.generate(_PROMPT, max_tokens=tokens, temperature=0, ignore_end=True)
            rates.append(answer.tokens_per_second)
            if answer.generation_seconds > _SLOW_SECONDS:
                break
    return max(rates)


def _cores() -> tuple[int, int]:
    """Return how many physical and logical cores this process may use; in
    a container its share of their time counts."""
    machine = describe_machine()
    physical, logical = int(machine["physical_cores"]), int(machine["logical_cores"])
    quota = core_quota(LiveSurroundings()).value
    if quota is not None:
        logical = min(logical, max(1, math.ceil(quota)))
    return min(physical, logical), logical


def _idle_cores(logical: int) -> int:
    busy_share = psutil.cpu_percent(interval=_LOOK_SECONDS) / 100
    return round(logical * (1 - busy_share))
