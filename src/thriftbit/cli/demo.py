"""`thriftbit demo`: the whole story on the model in the box."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click
from rich.text import Text

from thriftbit.cli.printing import announce, json_option, print_json, printable, say, show, table
from thriftbit.sizes import describe_bytes, describe_count

if TYPE_CHECKING:
    from thriftbit.demo import Level
    from thriftbit.runtime import Generation


@click.command(short_help="See it work on the small model in the box.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="A folder to keep the files in; nothing is kept without."
)
@click.option("--markdown", is_flag=True, help="Print the table as Markdown and write no text.")
@json_option
def demo(output: Path | None, markdown: bool, as_json: bool) -> None:
    """Quantize the small model in the box to seven levels, and let the 4-bit one write.

    Works offline and takes seconds.

    \b
    Examples:
      thriftbit demo
      thriftbit demo --output demo-output     keeps the files, to try them elsewhere
      thriftbit demo --json
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
        if as_json:
            print_json(
                {
                    "parameters": model.parameters,
                    "model_bytes": model.size_bytes,
                    "levels": [_level_document(level, kept=output is not None) for level in levels],
                    "writer": story.WRITER,
                    "prompt": story.PROMPT,
                    "generation": asdict(generation) | {"tokens_per_second": generation.tokens_per_second},
                }
            )
        else:
            _print_generation(story.WRITER, story.PROMPT, generation)
            say(
                f"\nThe files are in {output}."
                if output
                else "\nTo keep the files: thriftbit demo --output demo-output"
            )


@contextmanager
def _folder(output: Path | None) -> Iterator[Path]:
    if output is not None:
        yield output
    else:
        with TemporaryDirectory(prefix="thriftbit-demo-") as temporary:
            yield Path(temporary)


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


def _print_generation(writer: str, prompt: str, generation: Generation) -> None:
    say(
        f"\n{writer}, run by llama.cpp at {generation.tokens_per_second:.0f} tokens per second, continues a sentence:\n"
    )
    show(Text.assemble((prompt, "bold"), printable(generation.text)))
