"""What quantization did to a model's predictions: perplexity, divergence, answers. Needs the extra `torch`.

Any number of quantized files are judged in one pass beside their original. Passes come in rounds, each with more text
than all rounds before together, until the time is used up. The first round takes one window of each text and gives a
first answer within about a minute. Every further round narrows the intervals, and its result replaces the one before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch

from thriftbit.errors import ThriftbitError
from thriftbit.measurement.accuracy_rows import divergence_rows, perplexity_row
from thriftbit.measurement.circumstances import circumstances
from thriftbit.measurement.comparison import compare
from thriftbit.measurement.material import Material, Questions, TextWindows
from thriftbit.measurement.measurement import Measurement, Scalar, Subject
from thriftbit.measurement.schedule import Schedule
from thriftbit.measurement.scores import Scores
from thriftbit.measurement.subject import describe_subject
from thriftbit.measurement.tasks import accuracy_row, task_rows
from thriftbit.network.configuration import configuration_of
from thriftbit.network.network import Network
from thriftbit.network.threads import choose_threads
from thriftbit.network.weights import Weights
from thriftbit.progress import Progress, no_progress
from thriftbit.sources.model import Model

STATES_BYTES = 1 << 30  # of hidden states in memory at once, at most
EVERYTHING = "all"  # the domain of rows about all texts together


def measure_accuracy(
    quantized: Sequence[Model],
    original: Model | None,
    material: Sequence[Material],
    *,
    budget_seconds: float | None = None,
    command: str = "",
    progress: Progress = no_progress,
) -> Iterator[list[Measurement]]:
    """Yield after every round all rows that hold by then; they replace those of the round before.

    original: without one, perplexities and accuracies are measured, and no divergence. quantized: models that belong to
    the original (see `check_belongs`). material: see `gather`. budget_seconds: for everything, None for no limit.
    progress: see `Progress`.
    """
    models = [*([original] if original else []), *quantized]
    device = _device()
    if device.type == "cpu":
        choose_threads()
    network, weights = Network(configuration_of(models[0]), device), [Weights(model, original) for model in models]
    judged = [_Judged(describe_subject(model), [[] for _ in material]) for model in models]
    schedule = Schedule(material, budget_seconds, _tokens_in_memory(network, len(models)))
    while counts := schedule.next():
        first = schedule.taken
        chosen = [(m, first[m] + u) for m, count in enumerate(counts) for u in range(count)]
        units = [material[m].unit(u) for m, u in chosen]
        with _out_of_memory(models[0].source):
            found = compare(network, weights, [p for unit in units for p in unit], schedule.progress_of_round(progress))
        for own, scores in zip(judged, found, strict=True):
            remaining = iter(scores)
            for (m, _), unit in zip(chosen, units, strict=True):
                own.scores[m].append([next(remaining) for _ in unit])
        schedule.finish()
        yield list(_rows(judged, material, original is not None, command))


@dataclass
class _Judged:
    """scores: for each material, of each unit so far, of each of its passages"""

    subject: Subject
    scores: list[list[list[Scores]]]


def _rows(
    judged: Sequence[_Judged],
    material: Sequence[Material],
    has_original: bool,
    command: str,
) -> Iterator[Measurement]:
    common = circumstances(command, ["torch", "transformers"])
    original = judged[0] if has_original else None
    quantized = judged[1:] if has_original else judged
    for number, what in enumerate(material):
        if isinstance(what, Questions):
            task = what.first(len(judged[0].scores[number]))
            before = what.answers(original.scores[number]) if original else None
            if original and before:
                yield accuracy_row(task, before, original.subject, **common)
            for own in quantized:
                against = original.subject if original else None
                after = what.answers(own.scores[number])
                yield from task_rows(task, before, after, subject=own.subject, original=against, **common)
    for text in _texts(judged, material):
        windows = text.scores[0]
        facts: dict[str, Scalar] = {"domain": text.name, "context_tokens": text.context_tokens}
        facts |= {"windows": len(windows), "tokens": len(windows) * len(windows[0].log_probability)}
        for own, scores in zip(judged, text.scores, strict=True):
            yield perplexity_row(scores, own.subject, facts, common, text.parts)
        if original:
            for own, scores in zip(quantized, text.scores[1:], strict=True):
                compared = common | {"against": original.subject}
                yield from divergence_rows(windows, scores, own.subject, facts, compared, text.parts)


@dataclass(frozen=True)
class _Text:
    """scores: of each model, of the windows in the text's order. parts: of several texts together, the number of
    windows of each; empty for one text."""

    name: str
    context_tokens: int
    scores: list[list[Scores]]
    parts: tuple[int, ...] = ()


def _texts(judged: Sequence[_Judged], material: Sequence[Material]) -> Iterator[_Text]:
    """Yield every text, and last all of them together, if there is more than one."""
    texts = [
        _Text(what.name, what.context_tokens, [what.in_order(own.scores[number]) for own in judged])
        for number, what in enumerate(material)
        if isinstance(what, TextWindows)
    ]
    yield from texts
    if len(texts) > 1:
        together = [[window for text in texts for window in text.scores[number]] for number in range(len(judged))]
        yield _Text(EVERYTHING, texts[0].context_tokens, together, tuple(len(text.scores[0]) for text in texts))


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
