"""`thriftbit find`: models on this disk and on the Hub, and which of them fit here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

import thriftbit
from thriftbit.cli.options import json_option
from thriftbit.cli.printing import notes, output, print_json, say, show, table
from thriftbit.cli.waiting import Waiting
from thriftbit.sizes import describe_bytes
from thriftbit.strangers import harmless

if TYPE_CHECKING:
    from thriftbit.library.finding import Finding, Findings


NOTHING_FOUND, CANNOT_TELL = 3, 4


@click.command(short_help="Find models on this disk and on the Hub, and see which fit here.")
@click.argument("words", nargs=-1)
@click.option("--local", is_flag=True, help="Only this disk.")
@click.option("--offline", is_flag=True, help="Never use the network; the same as --local.")
@click.option("--look", is_flag=True, help="Read the headers of GGUF files on the Hub, some megabytes each.")
@click.option("--all", "show_all", is_flag=True, help="Show what does not fit here as well, and every row.")
@json_option
def find(words: tuple[str, ...], local: bool, offline: bool, look: bool, show_all: bool, as_json: bool) -> int:
    """Find models with all WORDS in their names, on this disk and on the Hugging Face Hub, the best first.

    A file on this disk is judged by its header, not by its name. Nothing is downloaded: each result comes with the next
    command. Without WORDS, everything on this disk is listed: the Hub's cache, Ollama, LM Studio, llama.cpp's cache,
    this folder, and the folders that config.toml names.

    The exit code is 3 if nothing was found, and 4 if nothing was found and the Hub did not answer.

    \b
    Examples:
      thriftbit find                          all models on this disk
      thriftbit find qwen3 8b                 on this disk and on the Hub
      thriftbit find llama 3.2 1b --local
      thriftbit find gemma q4_k_m --all
    """
    where = "this disk" if local or offline or not words else "this disk and the Hub"
    with Waiting(notes, lambda: f"searching {where}"):
        findings = thriftbit.find(words, local=local, offline=offline, look=look)
    if as_json:
        print_json(findings.to_dict())
    else:
        print_findings(findings, show_all=show_all, hub_wanted=bool(words) and not (local or offline))
    if findings.local or findings.hub or not words:
        return 0
    return CANNOT_TELL if not (local or offline or findings.hub_answered) else NOTHING_FOUND


HUB_ROWS = 20
NARROW = 110  # characters, below which names do not fit beside the facts
HEADINGS = ("name", "what it is", ">size", ">bits", "fits here", "where")


def print_findings(findings: Findings, *, show_all: bool, hub_wanted: bool) -> None:
    local = [finding for finding in findings.local if finding.problem is None]
    fitting = [finding for finding in findings.hub if show_all or finding.fits_here or finding.is_original]
    hub = fitting if show_all else fitting[:HUB_ROWS]
    rows = [*local, *hub]
    if rows:
        _show_rows(rows)
        say("")
        for line in _legend(findings, rows):
            say(line)
    else:
        say(_nothing(findings, hub_wanted))
    _say_left_out(len(findings.hub) - len(fitting), len(fitting) - len(hub))
    _print_list("Worth a second look:", _oddities(rows))
    _print_list("Could not be read:", (_unreadable(finding) for finding in findings.local if finding.problem))
    _print_list("Not searched:", findings.notes)
    _print_next(findings)


def _show_rows(rows: Sequence[Finding]) -> None:
    cells = [_row(finding) for finding in rows]
    if output.width >= NARROW:
        show(table(HEADINGS, cells))
        return
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADINGS))]
    for name, what, size, bits, fits, where in cells:
        say(name, style="bold")
        facts = (what.ljust(widths[1]), size.rjust(widths[2]), bits.rjust(widths[3]), fits.ljust(widths[4]), where)
        say("    " + "  ".join(facts).rstrip())
    say("(what it is, size, bits per weight, whether it fits here, where)", style="dim")


def _row(finding: Finding) -> tuple[str, ...]:
    sure = finding.known_by == "header"
    bits = f"{finding.bits_per_weight:.2f}" if finding.bits_per_weight else ""
    kind = "" if finding.writes_text or finding.problem else f"{finding.kind}, "
    doubt = "" if sure or not finding.what else "?"
    what = f"{kind}{finding.what or 'unknown'}{doubt}{' (!)' if finding.warning else ''}"
    return (
        harmless(finding.name).replace("\n", "\\n"),
        what,
        describe_bytes(finding.size_bytes) if finding.size_bytes else "",
        bits if sure or not bits else f"~{bits}",
        finding.fits,
        f"{finding.where}, gated" if finding.gated else finding.where,
    )


def _legend(findings: Findings, rows: Sequence[Finding]) -> Iterator[str]:
    free, most = findings.room.free_bytes, findings.room.most_bytes
    if free is not None:
        yield f"fits here: with a conversation of 4,096 tokens, in the {describe_bytes(free)} of free memory"
    if most is not None and any(finding.fits == "tight" for finding in rows):
        yield f"tight: when other programs are closed, in {describe_bytes(most)}"
    if any(finding.known_by != "header" for finding in rows):
        yield "?: by its name, ~: by its size; --look reads the headers of GGUF files on the Hub (some MB each)"
    if any(finding.gated for finding in rows):
        yield "gated: accept the terms on its page on huggingface.co, then log in with `hf auth login`"


def _nothing(findings: Findings, hub_wanted: bool) -> str:
    if not findings.words:
        return "There is no model on this disk. To search the Hub, give some words: thriftbit find qwen3 4b"
    if findings.hub:
        return "Nothing on this disk, and nothing on the Hub that fits here."
    looked = "on this disk and on the Hub" if hub_wanted and findings.hub_answered else "on this disk"
    return f"Nothing {looked} has all of these words in its name: {' '.join(findings.words)}"


def _say_left_out(unfit: int, more: int) -> None:
    parts = [f"{unfit} that do not fit here"] if unfit else []
    parts += [f"{more} more"] if more else []
    if parts:
        say(f"Not shown from the Hub: {' and '.join(parts)} (--all shows them).")


def _oddities(rows: Iterable[Finding]) -> Iterator[str]:
    for finding in rows:
        name = f"{finding.name} ({finding.where})" if finding.is_local else finding.name
        if finding.warning:
            yield f"{name}: {finding.warning}"
        if finding.problem:
            yield f"{name}: its header could not be read: {finding.problem}"
        if finding.copies:
            wasted = describe_bytes(finding.size_bytes * len(finding.copies))
            copies = ", ".join(map(_from_home, finding.copies))
            yield f"{name}: the same bytes are also in {copies} ({wasted} wasted)"
        if finding.aliases:
            yield f"{name} is also called {', '.join(finding.aliases)}"


def _unreadable(finding: Finding) -> str:
    problem = finding.problem or ""
    return problem if finding.path and finding.path in problem else f"{finding.name} ({finding.where}): {problem}"


def _from_home(path: str) -> str:
    home = str(Path.home())
    return f"~{path[len(home) :]}" if path.startswith(home + os.sep) else path


def _print_list(heading: str, sentences: Iterable[str]) -> None:
    sentences = list(sentences)
    if sentences:
        say(f"\n{heading}", style="bold")
        for sentence in sentences:
            say(f"  - {sentence}")


def _print_next(findings: Findings) -> None:
    if findings.next_steps:
        say("\nNext:", style="bold")
        for why, command in findings.next_steps:
            say(f"  {why}:")
            say(f"    {command}")
