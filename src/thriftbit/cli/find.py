"""`thriftbit find`: models on this disk and on the Hub, and which of them fit here."""

from __future__ import annotations

import click

import thriftbit
from thriftbit.cli.printing import announce, json_option, print_json

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

    What a file on this disk is, its header decides and not its name. Nothing is downloaded: each result comes with the
    command to go on with. Without WORDS, everything on this disk is listed: the Hub's cache, Ollama, LM Studio,
    llama.cpp's cache, this folder, and the folders that config.toml names.

    The exit code is 3 if nothing was found, and 4 if nothing was found and the Hub did not answer.

    \b
    Examples:
      thriftbit find                          all models on this disk
      thriftbit find qwen3 8b                 on this disk and on the Hub
      thriftbit find llama 3.2 1b --local
      thriftbit find gemma q4_k_m --all
    """
    findings = thriftbit.find(words, local=local, offline=offline, look=look, announce=announce)
    if as_json:
        print_json(findings.to_dict())
    else:
        from thriftbit.cli.find_printing import print_findings

        print_findings(findings, show_all=show_all, hub_wanted=bool(words) and not (local or offline))
    if findings.local or findings.hub or not words:
        return 0
    return CANNOT_TELL if not (local or offline or findings.hub_answered) else NOTHING_FOUND
