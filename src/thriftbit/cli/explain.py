"""`thriftbit explain`: what a quantization's name means."""

from __future__ import annotations

import click
from rich.table import Table
from rich.text import Text

from thriftbit.cli.completion import complete_words
from thriftbit.cli.options import json_option
from thriftbit.cli.printing import print_json, say, show
from thriftbit.strangers import harmless


@click.command(short_help="Say in plain words what Q4_K_M, AWQ or imatrix means.")
@click.argument("name", shell_complete=complete_words)
@json_option
def explain(name: str, as_json: bool) -> None:
    """Say in plain words what the NAME of a quantization means: how many bits, what runs it, whether to take it.

    NAME may also be that of a file, a repository or an Ollama model. What is really in a file is a question for
    `thriftbit inspect`.

    \b
    Examples:
      thriftbit explain Q4_K_M
      thriftbit explain UD-IQ3_XXS
      thriftbit explain Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4
      thriftbit explain imatrix
    """
    from thriftbit.library.explanations import explanation_of

    explanation = explanation_of(name)
    if as_json:
        print_json(explanation.to_dict())
        return
    say(explanation.title, style="bold")
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold", max_width=96)
    for question, answer in explanation.rows:
        grid.add_row(Text(f"  {question}", style="dim"), Text(harmless(answer)))
    if explanation.rows:
        say("")
        show(grid)
