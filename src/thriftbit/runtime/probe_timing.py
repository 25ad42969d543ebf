"""What llama.cpp does with the probe models, and what follows from it: rates of formats, and costs beside them.

Seconds for a token written and for a prompt read are measured. An answer is long enough to take a sixth of a second
or so, and there are as many answers as there is time for. Prompts have one length, enough for the kernels that
multiply whole matrices; those of 256 tokens are read within a tenth as fast.

A token takes its weights' bytes divided by the rate of their format, and something for every layer whatever its size.
Three models tell the two apart: wide layers, narrow layers with the same bytes, and a single narrow layer, which at
the end of a long text also tells what looking back costs. The cost of layers is then taken off, so that a rate holds
for layers of any width.

Left out: what a vocabulary costs, which is choosing among it and was found small (`machine/predict.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from thriftbit.errors import ThriftbitError
from thriftbit.machine.bandwidth import spread_of
from thriftbit.machine.profile import FormatRate, StepCost
from thriftbit.machine.rates import busiest_tokens
from thriftbit.runtime.chat_template import NOT_CHATTING
from thriftbit.runtime.engine import Engine
from thriftbit.runtime.probe_model import (
    CONTEXT_TOKENS,
    NARROW,
    WIDE,
    ProbeModel,
    Shape,
    layers_for,
    write_probe_model,
)

PROMPT_TOKENS = 64
_ROOM_TOKENS = 512
_FEWEST_ANSWERS, _FEWEST_PROMPTS, _MOST = 3, 2, 9  # repetitions
_ANSWER_SECONDS = 0.15
_ANSWER_TOKENS = (6, 128)
_WARM_UP_TOKENS = 3
_READING_SHARE = 0.4  # of the time
_SLOWEST_TOKEN_SECONDS = 2.0
_PROMPT = (1, 2, 3, 4)
_LONG_TEXT_TOKENS = 1024
SEEN_TOKENS = (len(_PROMPT) + _ANSWER_TOKENS[1] / 2, _LONG_TEXT_TOKENS + _ANSWER_TOKENS[1] / 2)
"""That a token looks back at in a short and in a long text, in the mean over an answer."""


@dataclass(frozen=True)
class Timings:
    """token_seconds: for a token written, by repetition. prompt_seconds: for PROMPT_TOKENS read, by repetition."""

    token_seconds: Sequence[float]
    prompt_seconds: Sequence[float]
    device: str


def time_model(model: ProbeModel, threads: int, seconds: float, *, reading: bool = True) -> Timings:
    """seconds: about how long it may take; a few repetitions are made even so. reading: whether prompts are timed, too.
    Raises ThriftbitError if llama.cpp cannot run it, or so slowly that something is wrong (too many threads)."""
    started = time.monotonic()
    with Engine(model.path, context_tokens=_ROOM_TOKENS, threads=threads, chat_template=NOT_CHATTING) as engine:
        engine.name = f"a model in {model.format}"
        pace = _written(engine, _WARM_UP_TOKENS)
        if pace > _SLOWEST_TOKEN_SECONDS:
            raise ThriftbitError(f"{engine.name}: {pace:.1f} s for a token with {threads} threads is not worth timing")
        fewest, most = _ANSWER_TOKENS
        tokens = min(max(fewest, round(_ANSWER_SECONDS / pace) if pace else most), most)
        deadline = started + seconds * (1 - _READING_SHARE if reading else 1)
        written = [_written(engine, tokens)]
        while len(written) < _FEWEST_ANSWERS or (time.monotonic() < deadline and len(written) < _MOST):
            written.append(_written(engine, tokens))
        read: list[float] = []
        while reading and (len(read) < _FEWEST_PROMPTS or (time.monotonic() < started + seconds and len(read) < _MOST)):
            read.append(_read(engine, model.vocabulary_size))
        return Timings(written, read, engine.device)


def time_looking_back(model: ProbeModel, threads: int) -> float:
    """Return seconds by which a token takes longer in a long text than in a short one (SEEN_TOKENS). As in `step_cost`:
    by the fastest of each, then as much slower as the usual one is."""
    with Engine(model.path, context_tokens=CONTEXT_TOKENS, threads=threads, chat_template=NOT_CHATTING) as engine:
        engine.name = f"a model in {model.format}"
        _written(engine, _WARM_UP_TOKENS)
        text = _text(_LONG_TEXT_TOKENS, model.vocabulary_size)
        shortly, at_length = list[float](), list[float]()
        for _ in range(_FEWEST_ANSWERS):  # in turns: other work that comes or goes meets both
            shortly.append(_written(engine, _ANSWER_TOKENS[1]))
            at_length.append(_written(engine, _ANSWER_TOKENS[1], text))
    return usual_slowdown([shortly, at_length]) * (min(at_length) - min(shortly))


def usual_slowdown(timed: Iterable[Sequence[float]]) -> float:
    """timed: repetitions, of several things. Returns how many times as long as the fastest the usual one takes."""
    return median(each / min(seconds) for seconds in timed for each in seconds)


def _written(engine: Engine, tokens: int, text: Sequence[int] = _PROMPT) -> float:
    """Return seconds for each of that many tokens, written after a text."""
    answer = engine.generate(text, max_tokens=tokens, temperature=0, ignore_end=True)
    if answer.generated_tokens != tokens:
        raise ThriftbitError(f"{engine.name}: llama.cpp wrote {answer.generated_tokens} tokens, not {tokens}")
    return answer.generation_seconds / (tokens - 1)


def _read(engine: Engine, vocabulary_size: int) -> float:
    """Return seconds for a prompt of PROMPT_TOKENS."""
    answer = engine.generate(
        _text(PROMPT_TOKENS, vocabulary_size), max_tokens=1, temperature=0, ignore_end=True, read_anew=True
    )
    return answer.prompt_seconds * PROMPT_TOKENS / answer.prompt_tokens


def _text(tokens: int, vocabulary_size: int) -> list[int]:
    return [1 + token % (vocabulary_size - 1) for token in range(tokens)]


# ---------------------------------------------------------------- from timings to rates


def step_cost(threads: int, timed: Sequence[tuple[ProbeModel, Sequence[float]]]) -> StepCost | None:
    """Return c and s of: seconds = bytes / rate + layers × c + s, through three models.

    timed: each with its seconds for a token, by repetition: wide layers, narrow layers, one narrow layer. The fastest
    of each tell c and s, since the difference of totals is small and whatever else runs only ever slows one down; then
    both are made as much slower as the usual answer is. None where a layer would cost nothing: then something else
    disturbed one of the models by more than all layers take."""
    terms = np.array([[model.decode_bytes, model.layers, 1.0] for model, _ in timed])
    fastest = np.array([min(seconds) for _, seconds in timed])
    _, layer_seconds, token_seconds = np.linalg.solve(terms, fastest).tolist()
    if layer_seconds <= 0:
        return None
    slower = usual_slowdown([seconds for _, seconds in timed])
    return StepCost(threads, slower * layer_seconds, slower * max(0.0, token_seconds))


def attention_seconds(cost: StepCost, model: ProbeModel, shape: Shape, longer_seconds: float | None) -> StepCost:
    """longer_seconds: how much longer a token takes in a long text; None where it was not measured, and zero or less
    where noise was larger. Returns the cost, with what looking back at one token costs for one number of a query."""
    if longer_seconds is None or longer_seconds <= 0:
        return cost
    shortly, at_length = (busiest_tokens(tokens, cost.threads) for tokens in SEEN_TOKENS)
    return replace(cost, attention_seconds=longer_seconds / (model.layers * shape.width * (at_length - shortly)))


def format_rate(model: ProbeModel, threads: int, timings: Timings, step: StepCost | None) -> FormatRate:
    """Return the rates, the cost of the steps taken off."""
    apart = 0.0 if step is None else model.layers * step.layer_seconds + step.token_seconds
    written = [model.decode_bytes / max(seconds - apart, seconds / 2) for seconds in timings.token_seconds]
    read = [model.prefill_weights * PROMPT_TOKENS / seconds for seconds in timings.prompt_seconds]
    return FormatRate(model.format, threads, spread_of(written), spread_of(read))


def pooled(visits: Iterable[Timings]) -> Timings:
    """Return the repetitions of several visits to one format."""
    every = list(visits)
    return Timings(
        token_seconds=[seconds for timings in every for seconds in timings.token_seconds],
        prompt_seconds=[seconds for timings in every for seconds in timings.prompt_seconds],
        device=every[0].device,
    )


# ---------------------------------------------------------------- what a token costs beside its weights

_FORMAT = "Q4_0"
_FEWEST_TURNS, _MOST_TURNS = 2, 4
NOISE = "lost in the noise of what else runs; measure again when it rests"


class StepProbe:
    """Context manager: three files of the size in the folder, gone at its end."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self._folder, self._size_bytes = folder, size_bytes

    def __enter__(self) -> StepProbe:
        shapes = ((WIDE, self._size_bytes), (NARROW, self._size_bytes), (NARROW, 0))
        self._models = [
            write_probe_model(self._folder / f"step-{index}.gguf", _FORMAT, layers_for(_FORMAT, size, shape), shape)
            for index, (shape, size) in enumerate(shapes)
        ]
        return self

    def __exit__(self, *raised: object) -> None:
        for model in self._models:
            with suppress(OSError):
                model.path.unlink()

    def measure(self, threads: int, seconds: float, tell: Callable[[], None]) -> StepCost | None:
        """seconds: for each of the models in each turn. tell: is called before each. -> None where a layer's cost is
        lost in noise. Raises ThriftbitError if llama.cpp cannot run them so."""
        timed: list[list[float]] = [[] for _ in self._models]
        cost: StepCost | None = None
        for turn in range(_MOST_TURNS):
            if turn >= _FEWEST_TURNS and cost is not None:
                break
            for index, model in enumerate(self._models):
                tell()
                timings = time_model(model, threads, seconds, reading=False)
                timed[index] += timings.token_seconds
            cost = step_cost(threads, list(zip(self._models, timed, strict=True)))
        if cost is None:
            return None
        tell()
        return attention_seconds(cost, self._models[-1], NARROW, self._looking_back(threads))

    def _looking_back(self, threads: int) -> float | None:
        try:
            return time_looking_back(self._models[-1], threads)
        except ThriftbitError:
            return None
