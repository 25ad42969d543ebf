"""`thriftbit doctor`: what this computer is, what it can use, what was measured of it."""

from __future__ import annotations

import click

import thriftbit
from thriftbit.cli.doctor_printing import print_profile
from thriftbit.cli.measure import Duration
from thriftbit.cli.offer import offer_measuring
from thriftbit.cli.printing import announce, json_option
from thriftbit.cli.progress import ProgressLine


@click.command(short_help="Show what this computer is, what it can use, and how fast it is.")
@click.option("--measure", "measuring", is_flag=True, help="Measure how fast models run here; takes about a minute.")
@click.option(
    "--time", "budget", type=Duration(), default="70s", show_default=True, help="About how long measuring may take."
)
@json_option
def doctor(measuring: bool, budget: float, as_json: bool) -> None:
    """Show what this computer is, what it can use to run models, and what was measured of it.

    --measure takes a minute: how fast memory and disk are read, how many threads help, and how fast llama.cpp computes
    with each format. It is kept, and everything that predicts a speed uses it. Measure while nothing else is running.
    At a terminal it is offered once, and again when the hardware has changed.

    With --json everything is told, each fact with where it was read: what a bug report wants. Nothing in it names you
    or your computer. Saved to a file, it answers for this computer on another one.

    \b
    Examples:
      thriftbit doctor
      thriftbit doctor --measure
      thriftbit doctor --measure --time 3m        every format, several times over
      thriftbit doctor --json > profile.json
    """
    if not measuring:
        offer_measuring(as_json)
    facts = thriftbit.examine()
    if measuring:
        with ProgressLine() as line:
            profile = thriftbit.measure_machine(facts, budget_seconds=budget, progress=line.update, announce=announce)
    else:
        profile = thriftbit.profile_of(facts)
    if as_json:
        print(profile.to_json(), flush=True)
    else:
        print_profile(profile)
