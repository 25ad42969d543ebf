"""What llama.cpp does with one probe model: seconds for a token written, and for a prompt read.

An answer is as long as takes a sixth of a second or so, and there are as many answers as there is time for. Prompts are
of one length, enough for the kernels that multiply whole matrices; those of 256 tokens are read within a tenth as fast.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from thriftbit.errors import ThriftbitError
from thriftbit.runtime.chat_template import NOT_CHATTING
from thriftbit.runtime.engine import Engine
from thriftbit.runtime.probe_model import CONTEXT_TOKENS, ProbeModel

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
    """-> seconds by which a token takes longer in a long text than in a short one (SEEN_TOKENS). As in `step_cost`: by
    the fastest of each, then as much slower as the usual one is"""
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
    """timed: repetitions, of several things. -> how many times as long as the fastest the usual one takes"""
    return median(each / min(seconds) for seconds in timed for each in seconds)


def _written(engine: Engine, tokens: int, text: Sequence[int] = _PROMPT) -> float:
    """-> seconds for each of so many, after a text"""
    answer = engine.generate(text, max_tokens=tokens, temperature=0, ignore_end=True)
    if answer.generated_tokens != tokens:
        raise ThriftbitError(f"{engine.name}: llama.cpp wrote {answer.generated_tokens} tokens, not {tokens}")
    return answer.generation_seconds / (tokens - 1)


def _read(engine: Engine, vocabulary_size: int) -> float:
    """-> seconds for a prompt of PROMPT_TOKENS"""
    answer = engine.generate(
        _text(PROMPT_TOKENS, vocabulary_size), max_tokens=1, temperature=0, ignore_end=True, read_anew=True
    )
    return answer.prompt_seconds * PROMPT_TOKENS / answer.prompt_tokens


def _text(tokens: int, vocabulary_size: int) -> list[int]:
    return [1 + token % (vocabulary_size - 1) for token in range(tokens)]
