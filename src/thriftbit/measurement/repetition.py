"""One repetition: a file is loaded into a process of its own, warmed up, timed and asked for its memory.

Each repetition starts a new process, for three reasons. Loading is measured as often as the rest. There are never two
models in memory, so whatever fits alone can be compared. And the place of a process in memory, which changes speed by a
few percent, differs between repetitions, so it favours no file throughout.

There are two requests. The first reads the prompt anew and writes one token. The second finds the prompt already read
and writes the answer, so the time and energy of writing are separate. The end of text is ignored. Tokens are always the
likeliest; drawing them by chance takes no measurably different time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from gguf import Keys, TokenType

from thriftbit.containers.gguf_reader import read_gguf
from thriftbit.errors import ThriftbitError
from thriftbit.machine.nvidia import gpu_memory_bytes
from thriftbit.measurement.energy import EnergyMeter, metered
from thriftbit.runtime.chat_template import NOT_CHATTING
from thriftbit.runtime.engine import CPU, Engine
from thriftbit.runtime.generation import Generation

_WARM_UP_TOKENS = 3

Reason = str  # why there is no number


@dataclass(frozen=True)
class Workload:
    """What each repetition does. prompt: token ids. longest_seconds: that the answer may take, by what the first tokens
    say. meter: of the energy, or why there is none."""

    prompt: Sequence[int]
    generated_tokens: int
    context_tokens: int
    threads: int
    longest_seconds: float
    meter: EnergyMeter | Reason


@dataclass(frozen=True)
class Repetition:
    """Rates in tokens/s, energy in J/token. before_loading_bytes: the process without a model. Where
    something could not be measured, the reason stands in place of the number."""

    load_seconds: float
    first_token_seconds: float
    prefill_rate: float
    decode_rate: float
    peak_memory_bytes: int
    before_loading_bytes: int
    peak_gpu_memory_bytes: int | Reason
    energy_per_token: float | Reason


def try_out(path: Path, workload: Workload) -> str:
    """Return the device that llama.cpp uses. Brings the file into the system's cache, and raises ThriftbitError where a
    repetition would fail or never end."""
    with Engine(
        path, context_tokens=workload.context_tokens, threads=workload.threads, chat_template=NOT_CHATTING
    ) as engine:
        _warm_up(engine, workload)
        return engine.device


def repeat(path: Path, workload: Workload) -> Repetition:
    """Raises ThriftbitError if the file cannot be run, or the engine dies."""
    with Engine(
        path, context_tokens=workload.context_tokens, threads=workload.threads, chat_template=NOT_CHATTING
    ) as engine:
        _warm_up(engine, workload)
        reading = engine.generate(workload.prompt, max_tokens=1, temperature=0, ignore_end=True, read_anew=True)
        decode_rate, energy = _write(engine, workload)
        memory = engine.memory()
        return Repetition(
            load_seconds=engine.load_seconds,
            first_token_seconds=reading.seconds,
            prefill_rate=reading.prompt_tokens_per_second,
            decode_rate=decode_rate,
            peak_memory_bytes=memory.peak_bytes,
            before_loading_bytes=memory.before_loading_bytes,
            peak_gpu_memory_bytes=_gpu_memory(engine),
            energy_per_token=energy,
        )


def ordinary_tokens(path: Path, count: int) -> tuple[list[int], int]:
    """Return ids of that many tokens, drawn by chance but always the same, none of them a control token; and how many
    tokens the model's context has. ThriftbitError if the file does not say."""
    metadata = read_gguf(path).metadata
    context_tokens = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    tokens, types = metadata.get(Keys.Tokenizer.LIST), metadata.get(Keys.Tokenizer.TOKEN_TYPE)
    if not isinstance(tokens, list) or not isinstance(context_tokens, np.integer):
        raise ThriftbitError(
            f"{path}: is no language model: it has no vocabulary, or does not say how long its context is"
        )
    normal: Sequence[int] = np.flatnonzero(types == TokenType.NORMAL).tolist() if isinstance(types, np.ndarray) else ()
    return random.Random(0).choices(normal or range(len(tokens)), k=count), int(context_tokens)


def _warm_up(engine: Engine, workload: Workload) -> None:
    prompt = workload.prompt[: 2 * _WARM_UP_TOKENS]
    rate = engine.generate(prompt, max_tokens=_WARM_UP_TOKENS, temperature=0, ignore_end=True).tokens_per_second
    if workload.generated_tokens > rate * workload.longest_seconds:
        raise ThriftbitError(
            f"not measurable here: {engine.name} writes {rate:.2g} tokens/s (does it fit into memory?), so that "
            f"{workload.generated_tokens} take longer than {workload.longest_seconds:.0f} s; give it more time"
        )


def _write(engine: Engine, workload: Workload) -> tuple[float, float | Reason]:
    """Return the rate in tokens/s and the energy in J/token."""
    energy: float | Reason
    if isinstance(workload.meter, Reason):
        answers, energy = _answers(engine, workload, 0.0), workload.meter
    else:
        answers, joules = metered(workload.meter, partial(_answers, engine, workload))
        tokens = sum(answer.generated_tokens for answer in answers)
        energy = joules if isinstance(joules, Reason) else joules / tokens
    steps = sum(answer.generated_tokens - 1 for answer in answers)
    return steps / sum(answer.generation_seconds for answer in answers), energy


def _answers(engine: Engine, workload: Workload, shortest_seconds: float) -> list[Generation]:
    """Return one answer, and more of the same until that time is over."""
    answers: list[Generation] = []
    started = time.monotonic()
    while not answers or time.monotonic() - started < shortest_seconds:
        answer = engine.generate(workload.prompt, max_tokens=workload.generated_tokens, temperature=0, ignore_end=True)
        if answer.generated_tokens != workload.generated_tokens:
            raise ThriftbitError(
                f"{engine.name}: llama.cpp wrote {answer.generated_tokens} tokens, not {workload.generated_tokens}"
            )
        answers.append(answer)
    return answers


def _gpu_memory(engine: Engine) -> int | Reason:
    if engine.device == CPU:
        return "not measurable here: llama.cpp uses no GPU"
    try:
        return gpu_memory_bytes(engine.process_id)
    except ThriftbitError as error:
        return f"not measurable here: {error}"
