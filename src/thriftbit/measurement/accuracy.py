"""What quantization did to a model's predictions: perplexity, divergence, answers. Needs the extra `torch`.

Any number of quantized files are judged in one pass beside their original. Passes come in rounds, each with more text
than all before, until the time given is used up: the first, of one window for each domain, says something within a
minute or so, and every further one narrows the intervals. Each round's result replaces the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import psutil
import torch

from thriftbit.errors import ThriftbitError
from thriftbit.measurement.accuracy_rows import divergence_rows, perplexity_row
from thriftbit.measurement.belonging import check_belongs
from thriftbit.measurement.circumstances import circumstances
from thriftbit.measurement.comparison import compare
from thriftbit.measurement.material import Material, Questions, Windows, questions_of, windows_of
from thriftbit.measurement.measurement import Measurement, Scalar, Subject
from thriftbit.measurement.rounds import Rounds
from thriftbit.measurement.scores import Scores
from thriftbit.measurement.subject import describe_subject
from thriftbit.measurement.tasks import accuracy_row, read_task, task_rows
from thriftbit.measurement.texts import DOMAINS, read_text
from thriftbit.network.configuration import configuration_of
from thriftbit.network.network import Network
from thriftbit.network.threads import choose_threads
from thriftbit.network.weights import Weights
from thriftbit.runtime.tokenizer import Tokenizer
from thriftbit.sources.model import Model

STATES_BYTES = 1 << 30  # of hidden states in memory at once, at most
EVERYTHING = "all"  # the domain of rows about all texts together


@dataclass(frozen=True)
class AccuracySettings:
    """domains: names of texts in the box, or files. tasks: of multiple-choice tasks, or files. windows, questions: of
    each, at most. budget_seconds: for everything, None for no limit."""

    domains: Sequence[str] = DOMAINS
    tasks: Sequence[str] = ()
    context_tokens: int = 512
    windows: int | None = None
    questions: int | None = None
    budget_seconds: float | None = None


def measure_accuracy(
    quantized: Sequence[Model],
    original: Model | None,
    settings: AccuracySettings,
    *,
    command: str = "",
    announce: Callable[[str], None] = lambda message: None,
    progress: Callable[[float], None] = lambda share: None,
) -> Iterator[list[Measurement]]:
    """original: without one, there are perplexities and accuracies and no divergence. announce: is told what to be
    warned of. progress: is told the share that is done.

    -> after every round all rows that hold by then, which replace those of the round before
    Raises ThriftbitError, before it computes anything, for files that do not belong together and for text that cannot
    be measured on.
    """
    models = [*([original] if original else []), *quantized]
    for model in quantized:
        check_belongs(model, models[0], announce)
    material = _material(models[0], settings)
    device = _device()
    if device.type == "cpu":
        choose_threads()
    network, weights = Network(configuration_of(models[0]), device), [Weights(model) for model in models]
    judged = [_Judged(describe_subject(model), [[] for _ in material]) for model in models]
    rounds = Rounds(material, settings.budget_seconds, _tokens_in_memory(network, len(models)))
    while counts := rounds.next():
        first = rounds.taken
        chosen = [(m, first[m] + u) for m, count in enumerate(counts) for u in range(count)]
        units = [material[m].unit(u) for m, u in chosen]
        with _out_of_memory(models[0].source):
            found = compare(network, weights, [p for unit in units for p in unit], rounds.share(progress))
        for own, scores in zip(judged, found, strict=True):
            remaining = iter(scores)
            for (m, _), unit in zip(chosen, units, strict=True):
                own.scores[m].append([next(remaining) for _ in unit])
        rounds.finish()
        yield list(_rows(judged, material, original is not None, settings, command))


@dataclass
class _Judged:
    """scores: for each material, of each unit so far, of each of its passages"""

    subject: Subject
    scores: list[list[list[Scores]]]


def _material(model: Model, settings: AccuracySettings) -> list[Material]:
    texts, tasks = [read_text(name) for name in settings.domains], [read_task(name) for name in settings.tasks]
    longest = model.metadata.get(f"{model.architecture}.context_length")
    longest_tokens = int(longest) if isinstance(longest, np.integer) else settings.context_tokens
    if settings.context_tokens > longest_tokens:
        raise ThriftbitError(
            f"{model.source} takes {longest_tokens} tokens; windows of {settings.context_tokens} are too long for it"
        )
    with Tokenizer(model.metadata, model.source) as tokenizer:

        def tokenize(texts: Sequence[str]) -> list[list[int]]:
            return tokenizer.tokenize(texts, add_special=True)

        windows = [
            windows_of(text, tokenize, model.metadata, settings.context_tokens, settings.windows) for text in texts
        ]
        questions = [questions_of(task, tokenize, longest_tokens, settings.questions) for task in tasks]
    return [*windows, *questions]


def _rows(
    judged: Sequence[_Judged],
    material: Sequence[Material],
    has_original: bool,
    settings: AccuracySettings,
    command: str,
) -> Iterator[Measurement]:
    common = circumstances(command, ["torch", "transformers"])
    original = judged[0] if has_original else None
    quantized = judged[1:] if has_original else judged
    texts: list[list[list[Scores]]] = [[] for _ in judged]  # of each model, of each domain, of each window
    names: list[str] = []
    for number, what in enumerate(material):
        if isinstance(what, Windows):
            names.append(what.name)
            for own, all_texts in zip(judged, texts, strict=True):
                all_texts.append(what.in_order(own.scores[number]))
        elif isinstance(what, Questions):
            task = what.first(len(judged[0].scores[number]))
            before = what.answers(original.scores[number]) if original else None
            if original and before:
                yield accuracy_row(task, before, original.subject, **common)
            for own in quantized:
                against = original.subject if original else None
                after = what.answers(own.scores[number])
                yield from task_rows(task, before, after, subject=own.subject, original=against, **common)
    if len(names) > 1:
        names.append(EVERYTHING)
        for all_texts in texts:
            all_texts.append([window for domain in all_texts for window in domain])
    for number, name in enumerate(names):
        windows = len(texts[0][number])
        positions = len(texts[0][number][0].log_probability) if windows else 0
        facts: dict[str, Scalar] = {"domain": name, "context_tokens": settings.context_tokens}
        facts |= {"windows": windows, "tokens": windows * positions}
        for own, all_texts in zip(judged, texts, strict=True):
            yield perplexity_row(all_texts[number], own.subject, facts, common)
        if original:
            for own, all_texts in zip(quantized, texts[1:], strict=True):
                compared = common | {"against": original.subject}
                yield from divergence_rows(texts[0][number], all_texts[number], own.subject, facts, compared)


def _device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _tokens_in_memory(network: Network, models: int) -> int:
    free = psutil.virtual_memory().available if network.device.type == "cpu" else STATES_BYTES
    return int(min(STATES_BYTES, free / 4) / (4 * network.width * models))


@contextmanager
def _out_of_memory(source: str) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise ThriftbitError(
            f"{source}: not enough memory to compute one of its layers; close other programs, or shorten --context"
        ) from None
