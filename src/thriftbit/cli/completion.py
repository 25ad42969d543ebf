"""`thriftbit completion`, and what can be completed: options, presets, names of models, words to explain."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from thriftbit.cli.printing import say

_VARIABLE = "_THRIFTBIT_COMPLETE"
_PLACES = {
    "bash": ("~/.bashrc", 'eval "$(thriftbit completion bash)"'),
    "zsh": ("~/.zshrc, below the line with compinit", 'eval "$(thriftbit completion zsh)"'),
    "fish": ("~/.config/fish/config.fish", "thriftbit completion fish | source"),
}


@click.command(short_help="Complete commands, presets and models in your shell.")
@click.argument("shell", type=click.Choice(list(_PLACES)))
def completion(shell: str) -> None:
    """Show how to let SHELL complete what you type: commands, options, presets, models and files.

    In a terminal, this says which line to put where. Elsewhere it prints the script that this line runs.

    \b
    Examples:
      thriftbit completion bash
      thriftbit completion zsh
      thriftbit completion fish
    """
    place, line = _PLACES[shell]
    if sys.stdout.isatty():
        say(f"Put this line into {place}, and open a new terminal:")
        say(f"  {line}")
        return
    found = get_completion_class(shell)
    assert found is not None
    print(found(click.get_current_context().find_root().command, {}, "thriftbit", _VARIABLE).source())


def complete_presets(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    from thriftbit.quantization.presets import PRESETS

    return beginning_with(begun, ((preset.name, preset.summary) for preset in PRESETS.values()))


def complete_models(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return the models on this disk as `thriftbit find` calls them, and files."""
    from thriftbit.library.disk_search import candidates

    found = candidates(
        Path.cwd(), lambda warning: None
    )  # by their places alone: nothing is opened while somebody types
    names = [(candidate.name, candidate.place) for candidate in found]
    return [*beginning_with(begun, names), CompletionItem(begun, type="file")]


def complete_words(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return what `thriftbit explain` knows."""
    from thriftbit.library.schemes import SCHEMES
    from thriftbit.library.terms import TERMS

    terms = ((term.name, term.meaning) for term in TERMS.values() if " " not in term.name)
    return beginning_with(begun, [*terms, *((name, scheme.distinction) for name, scheme in SCHEMES.items())])


def beginning_with(begun: str, known: Iterable[tuple[str, str]]) -> list[CompletionItem]:
    """known: (name, its help). Returns those whose name begins with what was typed."""
    return [CompletionItem(name, help=text) for name, text in known if name.lower().startswith(begun.lower())]
