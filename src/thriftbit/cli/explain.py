"""`thriftbit explain`: what a quantization's name means."""

from __future__ import annotations

from itertools import groupby

import click
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from thriftbit.cli.completion import complete_words
from thriftbit.cli.options import json_option
from thriftbit.cli.printing import print_json, say, show
from thriftbit.strangers import harmless


@click.command(short_help="Say in plain words what Q4_K_M, AWQ or perplexity means.")
@click.argument("words", metavar="[NAME]", nargs=-1, shell_complete=complete_words)
@json_option
def explain(words: tuple[str, ...], as_json: bool) -> None:
    """Say in plain words what the NAME of a quantization means: how many bits, what runs it, whether to take it.

    NAME may also be a file, a repository, an Ollama model, or any term that Thriftbit uses. Without NAME, all terms are
    listed. To see what is really in a file, use `thriftbit inspect`.

    \b
    Examples:
      thriftbit explain Q4_K_M
      thriftbit explain UD-IQ3_XXS
      thriftbit explain Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4
      thriftbit explain KL divergence
      thriftbit explain
    """
    from thriftbit.library.explanations import explanation_of

    if not words:
        _list_terms(as_json)
        return
    explanation = explanation_of(" ".join(words))
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


def _list_terms(as_json: bool) -> None:
    from thriftbit.library.terms import TERMS

    if as_json:
        print_json({term.name: {"topic": term.topic, "meaning": term.meaning} for term in TERMS.values()})
        return
    for topic, terms in groupby(TERMS.values(), lambda term: term.topic):
        say(topic.capitalize(), style="bold")
        show(Padding(Text(", ".join(term.name for term in terms)), (0, 0, 1, 2), expand=False))
    say("And the names of quantizations: Q4_K_M, IQ3_XXS, AWQ, int4, ...")
