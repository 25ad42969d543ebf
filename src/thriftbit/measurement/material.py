"""What a model is judged on, in units. A measurement takes as many units as it has time for.

A unit is a window of text, or a question with all its choices. The order of units spreads every beginning over the
whole, so stopping early gives a smaller sample of the same text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from gguf import Keys
from numpy.typing import NDArray

from thriftbit.containers.gguf_values import Metadata
from thriftbit.errors import ThriftbitError, shown
from thriftbit.measurement.scores import Passage, Scores
from thriftbit.measurement.tasks import Task, choice_tokens, choose
from thriftbit.measurement.texts import Text, scored_positions, spread
from thriftbit.measurement.texts import windows as cut_windows
from thriftbit.runtime.tokenizer import Tokenizer
from thriftbit.sources.model import Model

Tokenize = Callable[[list[str]], list[list[int]]]


class Material(Protocol):
    """name: of the domain or task. units: how many there are. unit_tokens: of one of them, about."""

    @property
    def name(self) -> str: ...

    @property
    def units(self) -> int: ...

    @property
    def unit_tokens(self) -> float: ...

    def unit(self, number: int) -> list[Passage]: ...


@dataclass(frozen=True)
class TextWindows:
    """A text, cut into windows as llama-perplexity cuts it. tokens: int64 (windows, context_tokens), in the text's
    order. order: in which they are taken."""

    name: str
    tokens: NDArray[np.int64]
    order: NDArray[np.int64]

    @property
    def units(self) -> int:
        return len(self.order)

    @property
    def context_tokens(self) -> int:
        return int(self.tokens.shape[1])

    @property
    def unit_tokens(self) -> float:
        return self.context_tokens

    def unit(self, number: int) -> list[Passage]:
        window = self.tokens[self.order[number]]
        return [Passage(window.tolist(), scored_positions(len(window)))]

    def in_order(self, scores: Sequence[list[Scores]]) -> list[Scores]:
        """scores: of the first units. Return the same windows in the text's order."""
        return [scores[number][0] for number in np.argsort(self.order[: len(scores)])]


@dataclass(frozen=True)
class Questions:
    """A task. passages: of every question, one for each choice."""

    task: Task
    passages: Sequence[list[Passage]]

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def units(self) -> int:
        return len(self.passages)

    @property
    def unit_tokens(self) -> float:
        return sum(len(choice.tokens) for choices in self.passages for choice in choices) / len(self.passages)

    def unit(self, number: int) -> list[Passage]:
        return self.passages[number]

    def answers(self, scores: Sequence[Sequence[Scores]]) -> list[int]:
        """scores: of the passages of the first questions. Return what the model answers to each of these."""
        return [
            choose([float(choice.log_probability.sum()) for choice in of_question], question)
            for of_question, question in zip(scores, self.task.questions, strict=False)
        ]

    def first(self, count: int) -> Task:
        """Return the task with no more than its first questions."""
        return replace(self.task, questions=self.task.questions[:count])


def gather(
    model: Model,
    texts: Sequence[Text],
    tasks: Sequence[Task],
    context_tokens: int,
    *,
    windows: int | None = None,
    questions: int | None = None,
) -> list[Material]:
    """model: whose tokenizer and context it is. windows, questions: of each text and task, at most.
    Raises ThriftbitError for what the model cannot be measured on."""
    stated = model.metadata.get(f"{model.architecture}.context_length")
    longest_tokens = int(stated) if isinstance(stated, np.integer) else context_tokens
    if context_tokens > longest_tokens:
        raise ThriftbitError(
            f"{model.source} takes {longest_tokens} tokens; windows of {context_tokens} are too long for it"
        )
    with Tokenizer(model.metadata, model.source) as tokenizer:
        last = model.metadata.get(Keys.Tokenizer.EOS_ID) if model.metadata.get(Keys.Tokenizer.ADD_EOS) else None

        def tokenize(strings: Sequence[str]) -> list[list[int]]:
            """A token for the end, where the vocabulary adds one, is no part of the text."""
            found = tokenizer.tokenize(strings, add_special=True)
            return found if last is None else [ids[:-1] if ids[-1:] == [last] else ids for ids in found]

        return [
            *(windows_of(text, tokenize, model.metadata, context_tokens, windows) for text in texts),
            *(questions_of(task, tokenize, longest_tokens, questions) for task in tasks),
        ]


def windows_of(
    text: Text, tokenize: Tokenize, metadata: Metadata, context_tokens: int, limit: int | None
) -> TextWindows:
    """metadata: of the model, which says whether texts begin with a token of their own. limit: of windows.
    Raises ThriftbitError for a text that is shorter than a window."""
    first = metadata.get(Keys.Tokenizer.BOS_ID)
    (tokens,) = tokenize([text.text])
    begins = isinstance(first, np.integer) and tokens[:1] == [int(first)]  # as llama.cpp does it, said or not said
    try:
        cut = cut_windows(tokens, context_tokens, tokens[0] if begins else None)
    except ThriftbitError as error:
        raise ThriftbitError(f"{text.origin}: {error}") from None
    return TextWindows(text.domain, cut, spread(len(cut), limit or len(cut)))


def questions_of(task: Task, tokenize: Tokenize, longest_tokens: int, limit: int | None) -> Questions:
    """longest_tokens: what the model takes. limit: of questions. Raises ThriftbitError for one that is longer."""
    order = spread(len(task.questions), limit or len(task.questions))
    task = replace(task, questions=tuple(task.questions[number] for number in order))
    passages = [
        [Passage(tokens, range(first - 1, len(tokens) - 1)) for tokens, first in choice_tokens(tokenize, question)]
        for question in task.questions
    ]
    for question, choices in zip(task.questions, passages, strict=True):
        if max(len(choice.tokens) for choice in choices) > longest_tokens:
            raise ThriftbitError(
                f"{task.name}: question {shown(question.id)} is longer than the {longest_tokens} tokens it takes"
            )
    return Questions(task, passages)
