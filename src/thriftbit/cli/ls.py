"""`thriftbit ls`: the models on this disk."""

from __future__ import annotations

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
    from thriftbit.library.finding import Finding

NARROW = 100  # characters, below which names have lines of their own
HEADINGS = ("name", "kind", "precision", ">size", "where", "alias")


@click.command(short_help="List the models on this disk.")
@click.argument("words", nargs=-1)
@json_option
def ls(words: tuple[str, ...], as_json: bool) -> None:
    """List the models on this disk, those with all WORDS in their names: what each is for, its size and where it is.

    Every command takes these names, and any part of a name that only one model has.

    \b
    Examples:
      thriftbit ls
      thriftbit ls qwen
    """
    from thriftbit.containers.atomic_file import abandoned_partials
    from thriftbit.library.aliases import read_aliases

    with Waiting(notes, lambda: "searching this disk"):
        found = thriftbit.find(words, local=True, parts=True)
    aliases = {target: alias for alias, target in read_aliases().items()}
    if as_json:
        listed = [
            {
                "name": each.name, "kind": each.kind, "precision": each.what, "size_bytes": each.size_bytes,
                "where": each.where, "path": each.path, "alias": aliases.get(each.path or ""),
                "also_called": each.aliases, "problem": each.problem,
            }
            for each in found.local
        ]  # fmt: skip
        print_json({"models": listed})
        return
    rows = [_row(each, aliases) for each in found.local]
    if not rows:
        say("There is no model on this disk." if not words else "No model on this disk has these words in its name.")
        say("`thriftbit find WORDS` searches the Hugging Face Hub; `thriftbit demo` needs no network.")
    elif output.width >= NARROW:
        show(table(HEADINGS, rows))
    else:
        for name, *facts in rows:
            say(name, style="bold")
            say("    " + "  ".join(fact for fact in facts if fact))
    for each in found.local:
        if each.aliases:
            say(f"{each.name} is also called {', '.join(each.aliases)}", style="dim")
    for partial in abandoned_partials(Path.cwd()):
        size = describe_bytes(partial.stat().st_size)
        say(
            f"{harmless(partial.name)} ({size}) was left half-written by a run that was killed; "
            "`thriftbit cache clear temporary` removes it"
        )


def _row(each: Finding, aliases: dict[str, str]) -> tuple[str, ...]:
    return (
        harmless(each.name).replace("\n", "\\n"),
        "cannot be read" if each.problem else each.kind,
        each.what if each.what and each.what != each.kind else "",
        describe_bytes(each.size_bytes),
        each.where,
        aliases.get(each.path or "", ""),
    )
