"""`thriftbit pull`: download a model from the Hugging Face Hub."""

from __future__ import annotations

import shlex

import click

import thriftbit
from thriftbit.cli.options import json_option
from thriftbit.cli.printing import print_json, say


@click.command(short_help="Download a model from the Hugging Face Hub.")
@click.argument("name", metavar="OWNER/NAME[:LEVEL]")
@json_option
def pull(name: str, as_json: bool) -> None:
    """Download a model from the Hugging Face Hub into the Hub's own cache, where other programs find it too.

    Of a repository with GGUF files, LEVEL chooses one: Q4_K_M, or the name of a file. Without it, Q4_K_M is taken if it
    fits the memory of this computer, and otherwise a smaller one. You are told the size first. An interrupted download
    goes on where it stopped.

    \b
    Examples:
      thriftbit pull unsloth/Qwen3-8B-GGUF
      thriftbit pull unsloth/Qwen3-8B-GGUF:Q8_0
      thriftbit pull HuggingFaceTB/SmolLM2-135M-Instruct
    """
    path = thriftbit.pull(name)
    if as_json:
        print_json({"name": name, "path": str(path)})
        return
    say(f"{name} is here: {path}")
    typed = shlex.quote(name)
    say(f"Next:  thriftbit quantize {typed} --to Q4_K_M" if path.is_dir() else f"Next:  thriftbit chat {typed}")
