"""`thriftbit alias`: short names of your own for models."""

from __future__ import annotations

from pathlib import Path

import click

import thriftbit
from thriftbit.cli.options import json_option
from thriftbit.cli.printing import print_json, say, show, table


@click.group(short_help="Give models short names of your own.")
def alias() -> None:
    """Short names of your own for models, which every command takes.

    \b
    Examples:
      thriftbit alias set qwen ~/models/Qwen3-8B-Q4_K_M.gguf
      thriftbit chat qwen
      thriftbit alias rm qwen
    """


@alias.command("set", short_help="Let ALIAS stand for MODEL.")
@click.argument("name", metavar="ALIAS")
@click.argument("model", metavar="MODEL")
def set_(name: str, model: str) -> None:
    """Let ALIAS stand for MODEL: a path, a name that `thriftbit ls` shows, or a name on the Hub (owner/name:LEVEL)."""
    from thriftbit.library.aliases import set_alias

    source = thriftbit.locate(model, to_run=True).source
    path = Path(source)
    set_alias(name, str(path.absolute()) if path.exists() else source)
    say(f"{name} now stands for {source}.")


@alias.command("ls", short_help="List the aliases.")
@json_option
def ls(as_json: bool) -> None:
    """List the aliases and what each stands for."""
    from thriftbit.library.aliases import read_aliases

    aliases = read_aliases()
    if as_json:
        print_json({"aliases": aliases})
    elif aliases:
        show(table(("alias", "model"), aliases.items()))
    else:
        say("There is no alias yet: thriftbit alias set NAME MODEL")


@alias.command("rm", short_help="Forget ALIAS; the model stays.")
@click.argument("name", metavar="ALIAS")
def rm(name: str) -> None:
    """Forget ALIAS. The model that it stands for stays."""
    from thriftbit.library.aliases import remove_alias

    say(f"{name} no longer stands for {remove_alias(name)}.")
