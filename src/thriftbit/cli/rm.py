"""`thriftbit rm`: remove a model from this disk."""

from __future__ import annotations

import sys

import click

import thriftbit
from thriftbit.cli.options import json_option
from thriftbit.cli.printing import print_json, say
from thriftbit.errors import UsageError
from thriftbit.sizes import describe_bytes


@click.command(short_help="Remove a model from this disk.")
@click.argument("name", metavar="NAME")
@click.option("--yes", is_flag=True, help="Remove it without asking.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option
def rm(name: str, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Remove the model NAME from this disk, after asking. The question says what goes and how much space that frees.

    In the Hub's cache, content that other files need stays. Ollama's models are left to Ollama.

    \b
    Examples:
      thriftbit rm my-model-Q4_K_M.gguf
      thriftbit rm unsloth/Qwen3-8B-GGUF:Q4_K_M
    """
    removal = thriftbit.removal_of(name)
    freed = f"frees {describe_bytes(removal.freed_bytes)}" if removal.freed_bytes else "frees nothing"
    if not as_json:
        say(f"{removal.name} ({removal.place}): {freed}")
        for path in removal.paths:
            say(f"  {path}")
        if removal.also_called:
            say(f"The same content stays as {', '.join(removal.also_called)}.")
        if removal.aliases:
            say(f"The alias {', '.join(removal.aliases)} goes with it.")
    if not dry_run:
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError("nobody can be asked here; --yes agrees beforehand. Nothing was removed")
            click.confirm("Remove it?", abort=True, err=True)
        removal.run()
    if as_json:
        document = {"name": removal.name, "paths": [str(path) for path in removal.paths]}
        print_json({**document, "freed_bytes": removal.freed_bytes, "removed": not dry_run})
    elif not dry_run:
        say("Removed.")
