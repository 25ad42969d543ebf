"""The questions that commands ask a person: before much is downloaded or written, and whether to measure this computer.

Nobody is asked where there is no terminal, or where JSON was asked for.
"""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import click

import thriftbit
from thriftbit.cli.messages import announce
from thriftbit.cli.printing import notes
from thriftbit.cli.progress import ProgressLine
from thriftbit.cli.waiting import Waiting
from thriftbit.errors import ThriftbitError, UsageError
from thriftbit.sizes import describe_bytes

if TYPE_CHECKING:
    from thriftbit.advice.ready import Ready
    from thriftbit.machine.running_plan import PlanWishes


_SMALL_BITS = 9  # for each weight: more cost memory and speed, and show no difference in a chat


def make_ready(model: str, *, context_tokens: int | None, running: PlanWishes, offline: bool, yes: bool) -> Ready:
    """yes: whether what is downloaded and written was agreed to beforehand"""
    with ProgressLine() as line:
        return thriftbit.ready_to_run(
            model,
            context_tokens=context_tokens,
            running=running,
            offline=offline,
            confirm=lambda words: yes or _confirmed(words),
            progress=line.update,
        )


def model_here(name: str, *, to_run: bool = False, offline: bool = False, yes: bool = False) -> str:
    """Return a path or a hub id that `open_model` takes, for whatever a person calls a model. A GGUF on the Hub is
    downloaded, after a question if it is large. to_run: prefer GGUF files to safetensors."""
    return thriftbit.obtain(name, to_run=to_run, offline=offline, confirm=lambda words: yes or _confirmed(words))


def choose_model() -> str:
    """Return the path of a model on this disk that a person chose from a list. Raises UsageError where nobody can be
    asked, and where there is none."""
    with Waiting(notes, lambda: "searching this disk"):
        found = [each for each in thriftbit.find(local=True).local if each.can_chat and each.problem is None]
    if not found:
        raise UsageError(
            "no model to chat with is on this disk. `thriftbit find WORDS` searches the Hugging Face Hub, `thriftbit "
            "pull OWNER/NAME` downloads from it, and `thriftbit demo` needs no network"
        )
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"say which model: thriftbit chat MODEL, for example {shlex.quote(found[0].name)}")
    fitting = [each for each in found if each.fits_here] or found
    for number, each in enumerate(fitting, 1):
        fits = {"yes": "", "tight": ", tight in memory"}.get(each.fits, f", fits here: {each.fits}")
        facts = ", ".join(filter(None, (each.what, describe_bytes(each.size_bytes), each.where)))
        announce(f"{number:>3}  {each.name}  ({facts}{fits})")
    if left := len(found) - len(fitting):
        announce(f"     {left} more do not fit into the memory that is free now; `thriftbit find` shows them")
    small = [number for number, each in enumerate(fitting, 1) if 0 < (each.bits_per_weight or 0) <= _SMALL_BITS]
    usual = small[0] if small else 1
    number = click.prompt("Chat with", type=click.IntRange(1, len(fitting)), default=usual, err=True)
    return str(fitting[number - 1].path)


def _confirmed(words: str) -> bool:
    if not sys.stdin.isatty():
        raise ThriftbitError(
            "nothing was downloaded or written, since nobody can be asked here; --yes agrees beforehand"
        )
    return click.confirm(words, err=True)


_WHY = {
    False: "How fast models run here was not measured yet.",
    True: "This computer has changed since it was measured, so how fast models run here is not known any more.",
}


def offer_measuring(as_json: bool) -> None:
    """Asks, where that makes sense, and measures on a yes; where measuring fails, says why and goes on"""
    if as_json or not (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()):
        return
    from thriftbit.machine.asking import Standing, remember_no, standing
    from thriftbit.machine.detect import detect

    facts = detect()
    found = standing(facts)
    if found not in (Standing.NEW, Standing.CHANGED):
        return
    announce(_WHY[found is Standing.CHANGED])
    announce("Measuring takes about a minute, is done once, and nothing leaves this computer.")
    if not click.confirm("Measure now?", default=True, err=True):
        remember_no(facts)
        announce("Later: thriftbit doctor --measure\n")
        return
    try:
        with ProgressLine() as line:
            thriftbit.measure_machine(progress=line.update)
    except ThriftbitError as error:
        remember_no(facts)  # it would fail again
        announce(f"Not measured: {error}")
    announce("")
