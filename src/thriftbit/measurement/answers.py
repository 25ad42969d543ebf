"""The answers of the original and of its quantized files to the same prompts, for people to read.

Every token is the likeliest one, so a difference comes from the model and not from chance. (One different token may
still lead to two equally good answers.) A model that was taught to chat is asked through its own chat template. Any
other model gets the beginning of a text to continue. So each prompt has both forms.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thriftbit.errors import ThriftbitError
from thriftbit.measurement.circumstances import engine_circumstances
from thriftbit.measurement.measurement import Measurement, Subject
from thriftbit.runtime.chat_template import NOT_CHATTING, fallback_for
from thriftbit.runtime.engine import Engine
from thriftbit.runtime.generation import Generation
from thriftbit.runtime.thread_choice import choose_threads
from thriftbit.sources.gguf_source import read_parts

ANSWER_TOKENS = 120
_CONTEXT_TOKENS = 2048
_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class Prompt:
    """id: what rows call it. question: for models that chat. beginning: of a text, for those that only continue."""

    id: str
    question: str
    beginning: str


DEFAULT_PROMPTS = (
    Prompt(
        "fact",
        "Why is the sky blue during the day and red at sunset? Answer in three sentences.",
        "The sky is blue during the day and red at sunset because",
    ),
    Prompt(
        "code",
        "Write a Python function that returns the n-th Fibonacci number, with one line that shows how to call it.",
        'def fibonacci(n):\n    """Return the n-th Fibonacci number."""\n',
    ),
    Prompt(
        "arithmetic",
        "A train leaves at 9:40 and takes 2 hours and 35 minutes. When does it arrive? Explain step by step.",
        "Question: A train leaves at 9:40 and takes 2 hours and 35 minutes. When does it arrive?\nAnswer: It arrives",
    ),
)


def own_prompts(texts: Sequence[str]) -> list[Prompt]:
    """Return prompts that a user wrote: the same words for either kind of model."""
    return [Prompt(f"own-{number}", text, text) for number, text in enumerate(texts, 1)]


def measure_answers(
    files: Sequence[tuple[Path, Subject]],
    original: tuple[Path, Subject] | None = None,
    prompts: Sequence[Prompt] = DEFAULT_PROMPTS,
    *,
    max_tokens: int = ANSWER_TOKENS,
    threads: int | None = None,
    command: str = "",
) -> Iterator[Measurement]:
    """Return an `answer` row for every prompt and file, the original's first, each as soon as it is written.

    The row's value is the answer's length in tokens; its detail has "prompt", as it was put, and "text". All files are
    asked in the same way, by chat template only if every one has it. A file that cannot be run has rows without values
    that say why. threads: found by trying if None. command: what to type to repeat it.
    """
    everything = [*([original] if original else []), *files]
    circumstances = engine_circumstances(command)
    threads = threads or _threads(everything)
    chat = all(_has_usable_template(path) for path, _ in everything)
    for number, (path, subject) in enumerate(everything):
        against = original[1] if original and number else None
        fields = {"subject": subject, "against": against, **circumstances}
        yield from _answers(path, prompts, chat, max_tokens, threads, fields)


def _answers(
    path: Path, prompts: Sequence[Prompt], chat: bool, max_tokens: int, threads: int, fields: dict[str, Any]
) -> Iterator[Measurement]:
    try:
        template = None if chat else NOT_CHATTING
        with Engine(path, context_tokens=_CONTEXT_TOKENS, threads=threads, chat_template=template) as engine:
            for prompt in prompts:
                yield _answer(engine, prompt, chat, max_tokens, fields)
    except ThriftbitError as error:  # it did not load
        for prompt in prompts:
            yield _row(prompt, chat, fields, str(error))


def _answer(engine: Engine, prompt: Prompt, chat: bool, max_tokens: int, fields: dict[str, Any]) -> Measurement:
    try:
        if chat:
            answer = engine.chat(prompt.question, max_tokens=max_tokens, temperature=0)
        else:
            answer = engine.generate(prompt.beginning, max_tokens=max_tokens, temperature=0)
    except ThriftbitError as error:  # too long a prompt; or the engine died, and the prompts after this one will say so
        return _row(prompt, chat, fields, str(error))
    return _row(prompt, chat, fields, answer)


def _row(prompt: Prompt, chat: bool, fields: dict[str, Any], answer: Generation | str) -> Measurement:
    """answer: or why there is none"""
    put = {"prompt": prompt.question if chat else prompt.beginning}
    settings = {"prompt_id": prompt.id}
    if isinstance(answer, str):
        return Measurement(what="answer", value=None, note=answer, settings=settings, detail=put, **fields)
    detail = {**put, "text": answer.text}
    return Measurement(what="answer", value=answer.generated_tokens, settings=settings, detail=detail, **fields)


def _has_usable_template(path: Path) -> bool:
    try:
        read_parts(path)
        return fallback_for(path) is None
    except (ThriftbitError, OSError):
        return True  # a file that cannot be read will have no answers, and does not change how the others are asked


def _threads(everything: Sequence[tuple[Path, Subject]]) -> int:
    """Return a good number of threads; llama.cpp's own choice takes a hundred times longer on a busy computer."""
    for path, _ in sorted(everything, key=lambda pair: pair[1].size_bytes):
        with contextlib.suppress(ThriftbitError):  # it will be told when its turn comes
            return choose_threads(path, patience_seconds=_PATIENCE_SECONDS)
    return 1
