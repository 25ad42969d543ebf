"""Options of the commands that run a model beside other work: how much of the computer it takes, and for how long."""

from __future__ import annotations

import click

full_speed_option = click.option(
    "--full-speed", is_flag=True, help="Do not let other programs go first, and keep the model in memory."
)
unload_option = click.option(
    "--unload-after",
    "unload_after_minutes",
    type=click.FloatRange(min=0),
    metavar="MINUTES",
    help="Give the memory back when nobody asks anything; 10 by default, 0 for never.",
)


def minutes_to_keep(asked: float | None, full_speed: bool) -> float | None:
    """asked: by the option. -> after which the model is unloaded; None for never"""
    from thriftbit.runtime.polite import UNLOAD_AFTER_MINUTES

    if asked is None:
        return None if full_speed else UNLOAD_AFTER_MINUTES
    return asked or None
