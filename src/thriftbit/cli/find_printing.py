"""What `thriftbit find` prints: a table, what is odd about its rows, and the commands to go on with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from thriftbit.cli.printing import say, show, table
from thriftbit.sizes import describe_bytes

if TYPE_CHECKING:
    from thriftbit.library.finding import Finding, Findings

HUB_ROWS = 20
HEADINGS = ("name", "what it is", ">size", ">bits", "fits here", "where")


def print_findings(findings: Findings, *, show_all: bool, hub_wanted: bool) -> None:
    local = [finding for finding in findings.local if finding.problem is None]
    hub = list(findings.hub) if show_all else [finding for finding in findings.hub if finding.fits != "no"]
    hub, later = (hub, []) if show_all else (hub[:HUB_ROWS], hub[HUB_ROWS:])
    rows = [*local, *hub]
    if rows:
        show(table(HEADINGS, map(_row, rows)))
        say("")
        for line in _legend(findings, rows):
            say(line)
    else:
        say(_nothing(findings, hub_wanted))
    larger = len(findings.hub) - len(hub) - len(later)
    if larger or later:
        parts = [f"{larger} that do not fit here"] if larger else []
        parts += [f"{len(later)} more"] if later else []
        say(f"Not shown from the Hub: {' and '.join(parts)} (--all shows them).")
    _print_list("Worth a second look:", _oddities(rows))
    _print_list("Could not be read:", (f"{_place(f)}: {f.problem}" for f in findings.local if f.problem))
    _print_list("Not everything was looked at:", findings.notes)
    _print_next(rows)


def _row(finding: Finding) -> tuple[str, ...]:
    bits = f"{finding.bits_per_weight:.2f}" if finding.bits_per_weight else ""
    sign = "~" if bits and finding.known_by != "header" else ""
    unsure = "" if finding.known_by == "header" or not finding.what else "?"
    return (
        finding.name,
        f"{finding.what or 'unknown'}{unsure}" + (" (!)" if finding.warning else ""),
        describe_bytes(finding.size_bytes) if finding.size_bytes else "",
        sign + bits,
        finding.fits,
        f"{finding.where}, gated" if finding.gated else finding.where,
    )


def _legend(findings: Findings, rows: Sequence[Finding]) -> Iterator[str]:
    free, most = findings.memory.free_bytes, findings.memory.most_bytes
    if free is not None and most is not None:
        tight = f"; tight: when other programs are closed ({describe_bytes(most)})" if most > free else ""
        yield (
            f"fits here: the weights and a conversation of 4,096 tokens, in the {describe_bytes(free)} of memory "
            f"that are free now{tight}"
        )
    if any(finding.known_by != "header" for finding in rows):
        yield "?: by its name only. ~: bits by the size of the file. --look reads the headers (some MB each)."
    if any(finding.gated for finding in rows):
        yield "gated: accept the terms on its page on huggingface.co, then log in with `hf auth login`."


def _nothing(findings: Findings, hub_wanted: bool) -> str:
    if not findings.words:
        return "There is no model on this disk. To look on the Hub, say what for: thriftbit find qwen3 4b"
    looked = "on this disk and on the Hub" if hub_wanted and findings.hub_answered else "on this disk"
    if findings.hub:
        return "Nothing on this disk, and nothing on the Hub that fits here."
    return f"Nothing {looked} has all of these words in its name: {' '.join(findings.words)}"


def _oddities(rows: Sequence[Finding]) -> Iterator[str]:
    for finding in rows:
        if finding.warning:
            yield f"{_place(finding)}: {finding.warning}"
        if finding.copies:
            freed = describe_bytes(finding.size_bytes * len(finding.copies))
            times = f"{len(finding.copies) + 1} times ({freed} too much)"
            yield f"{_place(finding)} is there {times}: {', '.join(finding.copies)}"
        if finding.aliases:
            yield f"{finding.name} is also called {', '.join(finding.aliases)}"


def _place(finding: Finding) -> str:
    return (
        finding.name
        if finding.name.startswith(("/", "~")) or not finding.is_local
        else f"{finding.name} ({finding.where})"
    )


def _print_list(heading: str, sentences: Iterator[str] | Sequence[str]) -> None:
    sentences = list(sentences)
    if sentences:
        say(f"\n{heading}", style="bold")
        for sentence in sentences:
            say(f"  - {sentence}")


def _print_next(rows: Sequence[Finding]) -> None:
    """The first that fits, of those here and of those on the Hub"""
    chosen = [
        next((finding for finding in rows if finding.is_local is local and finding.fits in ("yes", "tight")), None)
        for local in (True, False)
    ]
    commands = [finding.command for finding in chosen if finding is not None]
    if commands:
        say("\nNext:", style="bold")
        for command in commands:
            say(f"  {command}")
