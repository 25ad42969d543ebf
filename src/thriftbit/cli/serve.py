"""`thriftbit serve`: a model for other programs on this computer."""

from __future__ import annotations

import signal
from dataclasses import asdict
from types import FrameType
from typing import TYPE_CHECKING

import click

from thriftbit.cli.completion import complete_models
from thriftbit.cli.messages import announce
from thriftbit.cli.options import (
    Tokens,
    full_speed_option,
    json_option,
    minutes_to_keep,
    offline_option,
    running_options,
    threads_option,
    unload_option,
    yes_option,
)
from thriftbit.cli.printing import notes, print_json, say
from thriftbit.cli.questions import make_ready
from thriftbit.cli.waiting import Waiting
from thriftbit.errors import UsageError

if TYPE_CHECKING:
    from thriftbit.advice.ready import Ready
    from thriftbit.machine.running_plan import PlanWishes
    from thriftbit.runtime.serve import Server

_PATIENCE_SECONDS = 10.0


@click.command(short_help="Serve a model to other programs, as OpenAI does.")
@click.argument("model", metavar="MODEL", shell_complete=complete_models)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at; others need --api-key.")
@click.option("--port", type=int, default=8080, show_default=True, help="The port; 0 takes a free one.")
@click.option("--api-key", envvar="THRIFTBIT_API_KEY", default="", help="Answer only requests with this key.")
@click.option(
    "--users", type=click.IntRange(1, 64), default=4, show_default=True, help="Requests answered at the same time."
)
@click.option(
    "--context",
    "context_tokens",
    type=Tokens(),
    metavar="TOKENS",
    help="Context that all users share, in tokens; 8k by default.",
)
@running_options
@threads_option
@full_speed_option
@unload_option
@yes_option
@offline_option
@json_option
def serve(
    model: str,
    host: str,
    port: int,
    api_key: str,
    users: int,
    context_tokens: int | None,
    running: PlanWishes,
    threads: int | None,
    full_speed: bool,
    unload_after_minutes: float | None,
    yes: bool,
    offline: bool,
    as_json: bool,
) -> None:
    """Serve MODEL to other programs, as OpenAI serves theirs, and to people on a web page, until Ctrl-C.

    MODEL is a GGUF file. From a folder or the name of a model on the Hugging Face Hub (owner/name), Thriftbit first
    makes the file that `thriftbit fit` recommends; it asks before it downloads or writes much.

    Only this computer can reach the server, unless you give --host and an --api-key. In the environment, as
    THRIFTBIT_API_KEY, other users do not see the key.

    \b
    Examples:
      thriftbit serve my-model-Q4_K_M.gguf
      thriftbit serve my-model-Q4_K_M.gguf --port 9000 --context 16k
    """
    from thriftbit.runtime.admission import is_loopback
    from thriftbit.runtime.listening import check_free
    from thriftbit.runtime.serve import serving

    if not is_loopback(host) and not api_key:
        raise UsageError(
            f"--host {host} lets everybody who can reach this computer use the model, its memory and its power: give "
            "an --api-key that they need for it"
        )
    check_free(host, port)  # before anything long begins
    ready = make_ready(model, context_tokens=context_tokens, running=running, offline=offline, yes=yes)
    signal.signal(signal.SIGTERM, interrupt)
    waiting = Waiting(notes, lambda: f"loading {ready.path.name}")
    with (
        waiting,
        serving(
            ready.path,
            host=host,
            port=port,
            api_key=api_key,
            plan=ready.plan,
            users=users,
            threads=threads or ready.threads,
            polite=not full_speed,
            unload_after_minutes=minutes_to_keep(unload_after_minutes, full_speed),
        ) as server,
    ):
        waiting.end()
        try:
            _tell(server, ready, host, as_json)
            server.wait()
        except KeyboardInterrupt:
            if server.answering():
                announce("Finishing current answers; press Ctrl-C again to stop now.")
            server.finish(_PATIENCE_SECONDS)


def _tell(server: Server, ready: Ready, host: str, as_json: bool) -> None:
    from thriftbit.runtime.admission import is_loopback

    if not is_loopback(host):
        announce("Everybody who has the key and can reach this computer can use the model; nothing is encrypted.")
    if as_json:
        plan = asdict(server.plan)
        print_json({"address": server.address, "model": ready.path.name, **plan})
        return
    say(f"{ready.path.name} answers at {server.address}, with {server.plan.describe(ready.layers)}.")
    say(f"For programs: {server.address}/v1   For people: open {server.address}   Ctrl-C ends it.")


def interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
