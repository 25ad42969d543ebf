"""`thriftbit report`: what was measured, as a table and as one page."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from thriftbit.cli.messages import announce
from thriftbit.cli.options import json_option
from thriftbit.cli.printing import print_json, say, show
from thriftbit.containers.regular_files import open_regular
from thriftbit.errors import ThriftbitError
from thriftbit.sizes import describe_bytes
from thriftbit.strangers import quoted

if TYPE_CHECKING:
    from thriftbit.measurement.measurement import Measurement

DEFAULT_PAGE = "report.html"
SHOWN_PROBLEMS = 3
GGUF_MAGIC = b"GGUF"


@click.command(short_help="Show what was measured: a table, and one page to share.")
@click.argument("sources", metavar="[ROWS.jsonl | FILE.gguf]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path(DEFAULT_PAGE),
    help="The page; report.html by default.",
)
@click.option("--force", is_flag=True, help="Replace a file that is not a report of Thriftbit.")
@click.option("--open", "opening", is_flag=True, help="Open the page in the browser.")
@json_option
def report(sources: tuple[Path, ...], output: Path, force: bool, opening: bool, as_json: bool) -> None:
    """Show what quantization lost and gained, as a table here and as one HTML page that needs no network.

    Give files of rows that `thriftbit measure` wrote, or GGUF files whose measurements this computer has kept, or
    nothing: then it is about the model that was measured last, with every file measured against it. An earlier report
    is replaced.

    \b
    Examples:
      thriftbit report
      thriftbit report Qwen2.5-1.5B-Instruct-Q4_K_M.gguf -o qwen.html
      thriftbit report laptop.jsonl server.jsonl --open
    """
    from thriftbit.report import TerminalReport, is_report, summarize, summary_document, write_report

    rows = _rows(sources)
    summary = summarize(rows)
    if not as_json:
        show(TerminalReport(summary))
    path = write_report(rows, output, force or is_report(output))
    if as_json:
        print_json({"page": str(path), **summary_document(summary)})
    else:
        say(f"\nThe page is {path} ({describe_bytes(path.stat().st_size)}).")
        if not opening:
            say("`thriftbit report --open` shows it in your browser.")
    if opening:
        webbrowser.open(path.absolute().as_uri())


def _rows(sources: Sequence[Path]) -> list[Measurement]:
    """Return the rows to report; ThriftbitError if there are none."""
    from thriftbit.measurement.store import store_path

    if not sources:
        store = store_path()
        if not store.exists():
            raise ThriftbitError("nothing was measured yet; try: thriftbit measure FILE.gguf --against MODEL")
        return _read(store)
    models = [source for source in sources if _is_gguf(source)]
    rows = [row for source in sources if source not in models for row in _read(source)]
    return [*rows, *_kept_about(models)] if models else rows


def _kept_about(models: Sequence[Path]) -> list[Measurement]:
    """Return what the store has about the files and what they were measured against."""
    from thriftbit.measurement.store import store_path
    from thriftbit.measurement.subject import describe_subject
    from thriftbit.report import identity, rows_about
    from thriftbit.sources.open_model import open_as_it_is

    kept = _read(store_path()) if store_path().exists() else []
    subjects = []
    for path in models:
        subject = identity(describe_subject(open_as_it_is(path)))
        if not rows_about(kept, [subject]):
            raise ThriftbitError(f"{path}: was not measured yet; try: thriftbit measure {quoted(path)} --against MODEL")
        subjects.append(subject)
    return rows_about(kept, subjects)


def _read(path: Path) -> list[Measurement]:
    from thriftbit.measurement.store import read

    rows, problems = read(path)
    if not rows:
        why = f": {problems[0].removeprefix(f'{path}, ')}" if problems else ""
        raise ThriftbitError(f"{path}: there are no measurements in it{why}")
    for problem in problems[:SHOWN_PROBLEMS]:
        announce(f"Passed over: {problem}")
    if len(problems) > SHOWN_PROBLEMS:
        announce(f"Passed over: {len(problems) - SHOWN_PROBLEMS} more lines of {path} that are no measurements")
    return rows


def _is_gguf(path: Path) -> bool:
    with open_regular(path) as file:
        return file.read(len(GGUF_MAGIC)) == GGUF_MAGIC
