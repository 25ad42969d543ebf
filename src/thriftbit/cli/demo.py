"""`thriftbit demo`: the whole story on the model in the box."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

import thriftbit
from thriftbit.cli.messages import announce
from thriftbit.cli.options import json_option
from thriftbit.cli.printing import print_json, say, show, table
from thriftbit.cli.progress import ProgressLine
from thriftbit.containers.temporary_folder import temporary_folder
from thriftbit.sizes import describe_bytes, describe_count, describe_seconds
from thriftbit.strangers import harmless

if TYPE_CHECKING:
    from thriftbit import Measurement
    from thriftbit.demo import Level
    from thriftbit.runtime import Generation


@click.command(short_help="See it work on the small model in the box.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="A folder for the files and the report; by default nothing is kept.",
)
@click.option("--quick", is_flag=True, help="Measure nothing; show sizes and text only, in seconds.")
@click.option("--markdown", is_flag=True, help="Print the table of sizes as Markdown, and do no more.")
@json_option
def demo(output: Path | None, quick: bool, markdown: bool, as_json: bool) -> None:
    """Quantize the small model in the box to seven levels, let the 4-bit one write, and prove what each level cost.

    Works offline, in about two minutes; with --quick, in seconds. Measuring what was lost needs torch
    (pip install "thriftbit[torch]"); without it, only speed and memory are measured.

    \b
    Examples:
      thriftbit demo
      thriftbit demo --output demo-output     keeps the files and the report, a page to look at
      thriftbit demo --quick --json
    """
    from thriftbit import demo as story

    with _folder(output) as folder:
        model = story.open_demo_model()
        announce(
            f"A Llama of {describe_count(model.parameters)} parameters, "
            f"{describe_bytes(model.size_bytes)} as published, at {len(story.LEVELS)} levels:"
        )
        levels = list(story.quantize_levels(model, folder))
        if markdown:
            print(story.markdown_table(levels))
            return
        if not as_json:
            _print_levels(levels)
        generation = story.write_text(levels)
        if not as_json:
            _print_generation(story.WRITER, story.PROMPTS[0], generation)
        rows = [] if quick else _measure(levels)
        page = thriftbit.write_report(rows, output / "report.html", force=True) if rows and output else None
        if as_json:
            print_json(
                {
                    "parameters": model.parameters,
                    "model_bytes": model.size_bytes,
                    "levels": [_level_document(level, kept=output is not None) for level in levels],
                    "writer": story.WRITER,
                    "prompt": story.PROMPTS[0],
                    "generation": asdict(generation) | {"tokens_per_second": generation.tokens_per_second},
                    "rows": [json.loads(row.to_json()) for row in rows],
                    "report": str(page) if page else None,
                }
            )
        else:
            _print_measured(rows, output, page)


def _measure(levels: Sequence[Level]) -> list[Measurement]:
    from thriftbit.demo import MEASURED, measure_levels

    announce(f"\nNow what each level lost and gained, for about {describe_seconds(MEASURED.budget_seconds or 0)}:")
    with ProgressLine() as line:
        return list(measure_levels(levels, command="thriftbit demo", progress=line.update))


@contextmanager
def _folder(output: Path | None) -> Iterator[Path]:
    if output is not None:
        yield output
    else:
        with temporary_folder("demo") as temporary:
            yield temporary


def _level_document(level: Level, kept: bool) -> dict[str, object]:
    return asdict(level) | {"path": str(level.path) if kept else None}


def _print_levels(levels: list[Level]) -> None:
    rows = [
        (
            level.preset,
            describe_bytes(level.size_bytes),
            f"{level.share:.0%}",
            f"{level.bits_per_weight:.2f}",
            f"{level.seconds:.1f} s",
        )
        for level in levels
    ]
    show(table(("level", ">size", ">of the original", ">bits per weight", ">time"), rows))


def _print_measured(rows: list[Measurement], output: Path | None, page: Path | None) -> None:
    from thriftbit.report import TerminalReport, summarize

    if rows:
        say("")
        show(TerminalReport(summarize(rows)))
    if page:
        say(f"\nThe whole report, to look at in a browser: {page}")
    elif not output:
        say("\nTo keep the files, with a report to look at: thriftbit demo --output demo-output")


def _print_generation(writer: str, prompt: str, generation: Generation) -> None:
    say(f"\n{writer}, run by llama.cpp at {generation.tokens_per_second:.0f} tokens/s, continues a sentence:\n")
    show(Text.assemble((prompt, "bold"), harmless(generation.text)))
