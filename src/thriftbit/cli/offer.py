"""The offer to measure this computer, made where speeds would be shown and none was ever measured.

Only to a person: at a terminal, and not where JSON was asked for. Once: a no is remembered for this hardware. Where
the hardware has changed since it was measured, the old numbers are nobody's, and the offer is made again. `chat` does
not make it: who wants to talk to a model is not kept waiting for a minute.
"""

from __future__ import annotations

import sys

import click

import thriftbit
from thriftbit.cli.printing import announce
from thriftbit.cli.progress import ProgressLine
from thriftbit.errors import ThriftbitError

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
            thriftbit.measure_machine(progress=line.update, announce=announce)
    except ThriftbitError as error:
        remember_no(facts)  # it would fail again
        announce(f"Not measured: {error}")
    announce("")
