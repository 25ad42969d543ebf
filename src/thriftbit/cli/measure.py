"""`thriftbit measure`: what quantization lost and gained, measured here."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

import thriftbit
from thriftbit.cli.completion import complete_models
from thriftbit.cli.messages import announce
from thriftbit.cli.options import MOST_THREADS, Duration, Share, Tokens, json_option, offline_option
from thriftbit.cli.printing import print_json, say, show
from thriftbit.cli.progress import ProgressLine
from thriftbit.cli.questions import model_here
from thriftbit.errors import ThriftbitError, UsageError

if TYPE_CHECKING:
    from thriftbit.measurement.measurement import Measurement

VERDICT_NO, CANNOT_TELL = 3, 4
EXIT_CODES = {"yes": 0, "no": VERDICT_NO, "cannot tell yet": CANNOT_TELL}


@click.command(short_help="Measure what quantization lost and gained, on this computer.")
@click.argument("files", metavar="FILE...", shell_complete=complete_models, nargs=-1, required=True)
@click.option(
    "--against", metavar="MODEL", help="The original: a folder, a GGUF in 16 or 32 bits, or a name on the Hub."
)
@click.option(
    "--task",
    "tasks",
    multiple=True,
    metavar="TASK",
    help="prose, code, math or multilingual; arc_easy, arc_challenge, hellaswag, mmlu, piqa or winogrande; a text file "
    "of yours; or a .jsonl file of questions. May be repeated; the four texts and arc_easy by default.",
)
@click.option(
    "--only",
    "parts",
    multiple=True,
    type=click.Choice(["accuracy", "speed", "answers"]),
    help="Measure only this. May be repeated.",
)
@click.option("--time", "budget", type=Duration(), default="5m", show_default=True, help="About how long it may take.")
@click.option(
    "--max-loss",
    type=Share(),
    metavar="SHARE",
    help="Decide whether perplexity rises by more than, say, 1%: exit code 0 no, 3 yes, 4 cannot tell yet.",
)
@click.option(
    "--context",
    "context_tokens",
    type=Tokens(least=4),
    default=512,
    show_default=True,
    help="Tokens in each window of text.",
)
@click.option(
    "--prompt-tokens", type=click.IntRange(min=1), default=256, show_default=True, help="Tokens to read, for the speed."
)
@click.option(
    "--answer-tokens", type=click.IntRange(min=2), default=64, show_default=True, help="Tokens to write, for the speed."
)
@click.option(
    "--threads", type=click.IntRange(1, MOST_THREADS), help="Threads to run with; found by trying by default."
)
@click.option("--prompt", "prompts", multiple=True, help="A prompt for both to answer. May be repeated.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the rows to this .jsonl file as well.")
@offline_option
@json_option
def measure(
    files: tuple[str, ...],
    against: str | None,
    tasks: tuple[str, ...],
    parts: tuple[str, ...],
    budget: float,
    max_loss: float | None,
    context_tokens: int,
    prompt_tokens: int,
    answer_tokens: int,
    threads: int | None,
    prompts: tuple[str, ...],
    output: Path | None,
    offline: bool,
    as_json: bool,
) -> int:
    """Measure what quantized GGUF FILEs lost against the original, and what they gain in speed and memory.

    It measures how far their predictions are from the original's, on four kinds of text or on yours; how many
    multiple-choice questions they answer differently; how fast they run, and how much memory and energy they take; and
    what both answer to the same prompts. Every number has an interval, and is kept: `thriftbit report` makes a page of
    them.

    Accuracy needs torch: pip install "thriftbit[torch]".

    \b
    Examples:
      thriftbit measure my-model-Q4_K_M.gguf --against ./my-model
      thriftbit measure my-model-*.gguf --against ./my-model --time 20m
      thriftbit measure my-model-Q4_K_M.gguf --against ./my-model --task my-work.txt --max-loss 1%
      thriftbit measure my-model-Q4_K_M.gguf --only speed
    """
    from thriftbit.measurement.measure import DEFAULT_TASKS, PARTS, MeasureSettings

    settings = MeasureSettings(
        tasks=tasks or DEFAULT_TASKS,
        parts=parts or PARTS,
        context_tokens=context_tokens,
        budget_seconds=budget,
        prompt_tokens=prompt_tokens,
        generated_tokens=answer_tokens,
        threads=threads,
        prompts=prompts,
    )
    _check(max_loss, against, settings.parts)
    files = tuple(model_here(file, to_run=True, offline=offline) for file in files)
    against = against and model_here(against, offline=offline)
    rows: list[Measurement] = []
    try:
        with ProgressLine() as line:
            measured = thriftbit.measure(
                files,
                against,
                settings,
                offline=offline,
                command=shlex.join(["thriftbit", *sys.argv[1:]]),
                progress=line.update,
            )
            for row in measured:
                rows.append(row)
    finally:  # Ctrl-C, or a failure: what was measured is kept
        if rows:
            _keep(rows, files, output)
    if as_json:
        print_json({"rows": [json.loads(row.to_json()) for row in rows]})
    else:
        _print(rows)
    return _verdict(rows, max_loss)


def _keep(rows: Sequence[Measurement], files: Sequence[str], output: Path | None) -> None:
    """Keeps what was measured. Where that cannot be done it is told, and the rows are shown all the same."""
    from thriftbit.advice.feedback import learn
    from thriftbit.measurement.store import append

    steps: list[Callable[[], object]] = [partial(append, rows), partial(learn, rows, files)]
    steps += [partial(append, rows, output)] if output else []
    for step in steps:
        try:
            step()
        except ThriftbitError as error:
            announce(f"Warning: {error}")


def _check(max_loss: float | None, against: str | None, parts: Sequence[str]) -> None:
    if max_loss is not None and (against is None or "accuracy" not in parts):
        raise UsageError(
            "--max-loss is about accuracy beside the original: give --against, and do not leave accuracy out"
        )


def _print(rows: Sequence[Measurement]) -> None:
    from thriftbit.report import TerminalReport, summarize

    show(TerminalReport(summarize(list(rows))))
    say("\nFor the whole story as one page: thriftbit report")


def _verdict(rows: Sequence[Measurement], max_loss: float | None) -> int:
    """Return the exit code; of several files the worst decides."""
    if max_loss is None:
        return 0
    from thriftbit.measurement.measure import decide_loss

    verdicts = decide_loss(rows, max_loss)
    for row, verdict in verdicts:
        assert row.value is not None
        interval = "no interval yet"
        if row.low is not None and row.high is not None:
            interval = f"{row.low - 1:+.2%} to {row.high - 1:+.2%}"
        announce(
            f"{row.subject.name}: perplexity changes by {row.value - 1:+.2%} ({interval}). "
            f"Within {max_loss:.2%}? {verdict.capitalize()}."
        )
    if not verdicts or any(verdict == "cannot tell yet" for _, verdict in verdicts):
        announce("More time (--time) makes the interval narrower.")
    worst = max((EXIT_CODES[verdict] for _, verdict in verdicts if verdict == "no"), default=0)
    return worst or max((EXIT_CODES[verdict] for _, verdict in verdicts), default=CANNOT_TELL)
