"""`thriftbit export`: hand a model to Ollama, LM Studio or llama.cpp."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import thriftbit
from thriftbit.cli.completion import complete_models
from thriftbit.cli.options import json_option
from thriftbit.cli.printing import print_json, say
from thriftbit.cli.progress import ProgressLine
from thriftbit.cli.questions import model_here
from thriftbit.errors import UsageError
from thriftbit.sizes import describe_bytes

if TYPE_CHECKING:
    from thriftbit.runtime.export import Export

_WAYS = {
    "reflink": "shares its blocks with your file, and takes no space of its own",
    "hard link": "is your file under a second name, and takes no space of its own",
    "copy": "is a copy",
    "there already": "was there already",
}
_WHERE = {
    "Ollama": "https://ollama.com/download",
    "LM Studio": "https://lmstudio.ai",
    "llama.cpp": "https://github.com/ggml-org/llama.cpp/releases",
}


@click.command(short_help="Hand a model to Ollama, LM Studio or llama.cpp, without copying it.")
@click.argument("file", metavar="FILE", shell_complete=complete_models)
@click.option("--to", type=click.Choice(["ollama", "lmstudio", "llama.cpp"]), help="The program.")
@click.option("--name", metavar="NAME", help="The model's name there: NAME[:TAG] for Ollama, OWNER/NAME for others.")
@click.option("--folder", metavar="FOLDER", help="The program's folder for models, if it is not the usual one.")
@click.option("--force", is_flag=True, help="Replace what has that name already.")
@click.option("--dry-run", is_flag=True, help="Check everything, say what would be done, and change nothing.")
@json_option
def export(
    file: str, to: str | None, name: str | None, folder: str | None, force: bool, dry_run: bool, as_json: bool
) -> None:
    """Register the GGUF file FILE with a program that runs models, so that it lists it.

    The file is not copied where the disk allows: it gets a second name, or shares its blocks. Otherwise it is copied,
    and you are told the size first. For Ollama, the template, the stop tokens and the parameters are derived from the
    file's own; LM Studio and llama.cpp read them from the file. A file that the program could not load is refused. If
    anything goes wrong, nothing is left behind.

    \b
    Examples:
      thriftbit export my-model-Q4_K_M.gguf --to ollama
      thriftbit export my-model-Q4_K_M.gguf --to ollama --name my-model:small
      thriftbit export my-model-Q4_K_M.gguf --to lmstudio --dry-run
      thriftbit export my-model-Q4_K_M.gguf --to llama.cpp
    """
    if to is None:
        raise UsageError("say for which program: --to ollama, --to lmstudio or --to llama.cpp")
    file = model_here(file, to_run=True)
    with ProgressLine() as line:
        done = thriftbit.export(
            file,
            to,
            name=name,
            folder=folder,
            force=force,
            dry_run=dry_run,
            progress=line.update,
        )
    if as_json:
        print_json(done.to_dict())
        return
    _show(done)


def _show(done: Export) -> None:
    size = describe_bytes(done.size_bytes)
    if done.dry_run:
        way = "would be copied" if done.way == "copy" else "would not be copied, if the disk allows"
        say(f"{done.program} would have it as {done.name}. Its {size} {way}.", style="bold")
        say(f"  in  {done.folder}")
    else:
        say(f"{done.program} has it as {done.name}.", style="bold")
        say(f"  {size}: {_WAYS[done.way]}")
        say(f"  {done.marker}")
    for note in done.notes:
        say(f"  {note}")
    if not done.installed:
        say(f"  {done.program} was not found on this computer; it is at {_WHERE[done.program]}")
    say("")
    say(f"Run it:  {done.command}" if done.installed else f"Then run it:  {done.command}")
