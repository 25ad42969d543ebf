"""Everything that `thriftbit measure` measures, in one run: accuracy, speed, answers.

Rows come as soon as they are known. So a run that ends early (Ctrl-C, a file that cannot be run) loses only what was
not measured yet.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from thriftbit.errors import ThriftbitError, UsageError
from thriftbit.library.inventory import check_can_chat
from thriftbit.measurement.answers import DEFAULT_PROMPTS, measure_answers, own_prompts
from thriftbit.measurement.belonging import check_belongs
from thriftbit.measurement.material import Material, gather
from thriftbit.measurement.measurement import Measurement, Subject
from thriftbit.measurement.original import original_file
from thriftbit.measurement.speed import SpeedSettings, measure_speed
from thriftbit.measurement.statistics import decide
from thriftbit.measurement.subject import describe_subject
from thriftbit.measurement.tasks import TASKS, read_task
from thriftbit.measurement.texts import DOMAINS, read_text
from thriftbit.progress import Progress, no_progress, part_of
from thriftbit.sources.gguf_source import undecodable
from thriftbit.sources.model import Model
from thriftbit.sources.open_model import open_as_it_is, open_model

_logger = logging.getLogger(__name__)

PARTS = ("accuracy", "speed", "answers")
DEFAULT_TASKS = (*DOMAINS, "arc_easy")
EXTRA = ("torch", "transformers", "scipy")
SPEED_SHARE = 0.3  # of the time, where accuracy is measured too


class CannotMeasureError(ThriftbitError):
    """What was asked for cannot be measured on this computer as it is."""

    exit_code = 4


@dataclass(frozen=True)
class MeasureSettings:
    """tasks: names of texts and tasks in the box, text files, and .jsonl files of questions. parts: of PARTS.
    context_tokens: of a window of text. windows: of each text, questions: of each task, at most. budget_seconds: for
    accuracy and speed together, None for no limit. prompt_tokens, generated_tokens: what is read and written for the
    speed. threads: of the engine, found by trying if None. prompts: to be answered, three of ours if there are none.
    """

    tasks: Sequence[str] = DEFAULT_TASKS
    parts: Sequence[str] = PARTS
    context_tokens: int = 512
    windows: int | None = None
    questions: int | None = None
    budget_seconds: float | None = 300
    prompt_tokens: int = 256
    generated_tokens: int = 64
    threads: int | None = None
    prompts: Sequence[str] = ()


def measure(
    files: Sequence[str | Path],
    against: str | Path | None = None,
    settings: MeasureSettings | None = None,
    *,
    offline: bool = False,
    command: str = "",
    progress: Progress = no_progress,
) -> Iterator[Measurement]:
    """Yield the rows.

    files: GGUF files. against: the original that they were made from, as a folder, a GGUF or a hub id; without it
    nothing is compared. progress: see `Progress`. Raises ThriftbitError for files that do not belong together, and
    CannotMeasureError if accuracy alone is asked for and torch is missing.
    """
    settings = settings or MeasureSettings()
    models, original, material = _open(files, against, settings, offline)
    if material is not None:
        yield from _accuracy(models, original, material, settings, command, progress)
    if {"speed", "answers"} & set(settings.parts):
        yield from _in_the_engine(models, original, settings, command, progress)


def decide_loss(rows: Iterable[Measurement], max_loss: float) -> list[tuple[Measurement, str]]:
    """Return, for each file, its `perplexity_ratio` over all the text that it was measured on, and whether the ratio is
    within the limit.

    max_loss: the share by which perplexity may rise.
    """
    ratios: dict[str, Measurement] = {}
    for row in rows:  # the row about everything, where there is more than one text, is the last
        if row.what == "perplexity_ratio":
            ratios[row.subject.fingerprint] = row
    return [(row, decide(row.low, row.high, 1 + max_loss)) for row in ratios.values()]


def _open(
    files: Sequence[str | Path],
    against: str | Path | None,
    settings: MeasureSettings,
    offline: bool,
) -> tuple[list[Model], Model | None, list[Material] | None]:
    """All that can be wrong with the request is found here, before anything long begins. Return the quantized models,
    the original, and what to judge them on, None if accuracy is not measured."""
    for part in settings.parts:
        if part not in PARTS:
            raise UsageError(f"{part!r} cannot be measured; what can is {', '.join(PARTS)}")
    questions = [name for name in settings.tasks if name in TASKS or name.endswith(".jsonl")]
    texts = [read_text(name) for name in settings.tasks if name not in questions]
    tasks = [read_task(name) for name in questions]
    for file in files:
        if Path(file).is_file():
            check_can_chat(Path(file), "`thriftbit measure` is for models that write text")
    models = [open_as_it_is(file, offline=offline) for file in files]
    for file, model in zip(files, models, strict=True):
        if not Path(model.source).is_file():
            raise UsageError(f"{file} is not a GGUF file: measure what `thriftbit quantize` makes of it")
    original = open_model(against, offline=offline) if against is not None else None
    for model in models if original or "accuracy" in settings.parts else []:
        check_belongs(model, original or models[0])
    if "accuracy" not in settings.parts or not (_extra_is_installed(settings) and _can_be_decoded(models, settings)):
        return models, original, None
    limits = {"windows": settings.windows, "questions": settings.questions}
    return models, original, gather(original or models[0], texts, tasks, settings.context_tokens, **limits)


def missing_extra() -> str:
    """Return what accuracy needs and is not installed, with what to do; "" where nothing is missing."""
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    return f'{" and ".join(missing)}; try: pip install "thriftbit[torch]"' if missing else ""


def _extra_is_installed(settings: MeasureSettings) -> bool:
    missing = missing_extra()
    return not missing or _not_measured(f"accuracy needs {missing}", settings)


def _can_be_decoded(models: Iterable[Model], settings: MeasureSettings) -> bool:
    for model in models:
        if (kind := undecodable(model)) is not None:
            return _not_measured(f"accuracy of {model.source}, whose weights in {kind} can only be run here", settings)
    return True


def _not_measured(reason: str, settings: MeasureSettings) -> bool:
    """Warns that accuracy is left out -> False; CannotMeasureError where nothing else was asked for"""
    if list(settings.parts) == ["accuracy"]:
        raise CannotMeasureError(reason)
    _logger.warning(f"Not measured: {reason}")
    return False


def _accuracy(
    models: Sequence[Model],
    original: Model | None,
    material: Sequence[Material],
    settings: MeasureSettings,
    command: str,
    progress: Progress,
) -> Iterator[Measurement]:
    from thriftbit.measurement.accuracy import measure_accuracy

    budget = settings.budget_seconds
    if budget is not None and "speed" in settings.parts:
        budget *= 1 - SPEED_SHARE
    rounds = measure_accuracy(
        models,
        original,
        material,
        budget_seconds=budget,
        command=command,
        progress=part_of(progress, 0, 1, "accuracy"),
    )
    rows: list[Measurement] = []
    try:
        while newer := next(rounds, None):
            rows = newer
    except (KeyboardInterrupt, ThriftbitError):  # what the rounds before it found still holds
        yield from rows
        raise
    yield from rows


def _in_the_engine(
    models: Sequence[Model],
    original: Model | None,
    settings: MeasureSettings,
    command: str,
    progress: Progress,
) -> Iterator[Measurement]:
    files = [(Path(model.source), describe_subject(model)) for model in models]
    if original is None:
        yield from _speed_and_answers(files, None, settings, command, progress)
        return
    with original_file(original, progress=part_of(progress, 0, 1, "writing the original")) as path:
        yield from _speed_and_answers(files, (path, describe_subject(original)), settings, command, progress)


def _speed_and_answers(
    files: Sequence[tuple[Path, Subject]],
    original: tuple[Path, Subject] | None,
    settings: MeasureSettings,
    command: str,
    progress: Progress,
) -> Iterator[Measurement]:
    threads = settings.threads
    if "speed" in settings.parts:
        speed = SpeedSettings(
            prompt_tokens=settings.prompt_tokens,
            generated_tokens=settings.generated_tokens,
            context_tokens=max(SpeedSettings.context_tokens, settings.prompt_tokens + settings.generated_tokens),
            threads=settings.threads,
        )
        if settings.budget_seconds is not None:
            share = SPEED_SHARE if "accuracy" in settings.parts else 1.0
            speed = replace(speed, budget_seconds=share * settings.budget_seconds)
        for row in measure_speed(files, original, speed, command=command, progress=progress):
            threads = threads or int(row.settings.get("threads", 0)) or None  # found by trying, so not again
            yield row
    if "answers" in settings.parts:
        progress("answers", 0.0)
        prompts = own_prompts(settings.prompts) if settings.prompts else DEFAULT_PROMPTS
        yield from measure_answers(files, original, prompts, threads=threads, command=command)
