"""`thriftbit map`: what a model loses at every size, measured once; afterwards every budget is answered at once."""

from __future__ import annotations

from pathlib import Path

import click

import thriftbit
from thriftbit.cli.printing import announce, json_option
from thriftbit.cli.progress import ProgressLine


@click.command("map", short_help="Find out what a model loses at every size; then any budget is answered at once.")
@click.argument("source", metavar="MODEL")
@click.option(
    "--effort",
    type=click.Choice(["plain", "calibrated"]),
    default="calibrated",
    show_default=True,
    help="How files will be rounded; plain takes half the time.",
)
@click.option(
    "--calibrate-on",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A text of yours; four kinds of text in the box by default.",
)
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write it as one HTML page as well.")
@click.option("--force", is_flag=True, help="Replace the HTML page if it exists.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads for encoding; every core by default.")
@click.option("--offline", is_flag=True, help="Never use the network; take Hub models from the local cache.")
@json_option
def map_command(
    source: str,
    effort: str,
    calibrate_on: Path | None,
    html: Path | None,
    force: bool,
    threads: int | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Find out what MODEL loses at every size, tensor by tensor and format by format.

    That takes minutes for a small model and hours for a large one, once; it may be interrupted and goes on where it
    was. Afterwards `thriftbit quantize` answers any budget at once: a size, bits per weight, or the loss you allow.
    Needs the extra torch. MODEL is what `thriftbit quantize` takes.

    \b
    Examples:
      thriftbit map ./Qwen2.5-1.5B-Instruct
      thriftbit map ./my-model --html map.html
      thriftbit map ./my-model --calibrate-on my-work.txt
      thriftbit quantize ./my-model --size 4GB        what it is good for
    """
    from thriftbit.cli.map_printing import map_document, print_map
    from thriftbit.containers.atomic_file import check_target

    if html:
        check_target(html, html, force)
    model = thriftbit.open_model(source, offline=offline, announce=announce)
    with ProgressLine() as line:
        sensitivities = thriftbit.map_model(
            model, effort, calibrate_on, threads=threads, announce=announce, progress=line.update
        )
    if html:
        thriftbit.write_map(model, sensitivities, effort, html, force=force)
    if as_json:
        map_document(model, sensitivities, effort)
    else:
        print_map(model, sensitivities, effort, source, html)
