"""`thriftbit compare`: precisions of a model side by side, on a page of this computer."""

from __future__ import annotations

import os
import signal
import sys
import webbrowser
from typing import TYPE_CHECKING

import click

import thriftbit
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
from thriftbit.cli.serve import interrupt
from thriftbit.cli.waiting import Waiting
from thriftbit.errors import UsageError

if TYPE_CHECKING:
    from thriftbit.machine.running_plan import PlanWishes
    from thriftbit.side_by_side.comparing import Page


@click.command(short_help="See precisions of a model answer side by side, and whether you can tell them apart.")
@click.argument("models", metavar="MODEL MODEL...", shell_complete=complete_models, nargs=-1, required=True)
@click.option("--port", type=int, default=0, show_default=True, help="The port; 0 takes a free one.")
@click.option("--no-browser", is_flag=True, help="Do not open the page; its address is printed anyway.")
@click.option(
    "--context",
    "context_tokens",
    type=Tokens(),
    metavar="TOKENS",
    help="Length of each model's context, in tokens; 4k by default.",
)
@running_options
@threads_option
@click.option("--at-once", is_flag=True, help="Let all write at the same time; they slow each other down.")
@full_speed_option
@unload_option
@yes_option
@offline_option
@json_option
def compare(
    models: tuple[str, ...],
    port: int,
    no_browser: bool,
    context_tokens: int | None,
    running: PlanWishes,
    threads: int | None,
    at_once: bool,
    full_speed: bool,
    unload_after_minutes: float | None,
    yes: bool,
    offline: bool,
    as_json: bool,
) -> None:
    """See two MODELs or more answer the same questions side by side, on a page in your browser, until Ctrl-C.

    Each answer comes with its speed and memory, and words that differ from the original's are marked. The original is
    the file with the most bits per weight. In a blind test you are shown two answers without names, and pick the
    original: after some votes you know whether you can tell them apart.

    MODEL is a GGUF file. From a folder or the name of a model on the Hugging Face Hub (owner/name), Thriftbit first
    makes the file that `thriftbit fit` recommends; it asks before it downloads or writes much.

    The page is for you alone: only this computer reaches it, and only with the key in its address.

    \b
    Examples:
      thriftbit compare my-model-BF16.gguf my-model-Q4_K_M.gguf
      thriftbit compare my-model-Q8_0.gguf my-model-Q4_K_M.gguf my-model-Q2_K.gguf --context 8k
    """
    from thriftbit.runtime.listening import check_free
    from thriftbit.side_by_side.comparing import DEFAULT_CONTEXT_TOKENS, HOST

    if len(models) < 2:
        raise UsageError("compare takes two files or more; `thriftbit quantize` makes another precision of one")
    check_free(HOST, port)  # before anything long begins
    asked = context_tokens or DEFAULT_CONTEXT_TOKENS
    ready = [make_ready(model, context_tokens=asked, running=running, offline=offline, yes=yes) for model in models]
    shared = min(each.plan.context_tokens for each in ready)  # so that all are asked the same
    signal.signal(signal.SIGTERM, interrupt)
    waiting = Waiting(notes, lambda: "loading the models")
    with (
        waiting,
        thriftbit.compare(
            [each.path for each in ready],
            port=port,
            plans=[each.plan.with_context(shared) for each in ready],
            threads=threads or ready[0].threads,
            at_once=at_once,
            polite=not full_speed,
            unload_after_minutes=minutes_to_keep(unload_after_minutes, full_speed),
        ) as page,
    ):
        waiting.end()
        try:
            _tell(page, as_json)
            if not no_browser and not as_json and has_browser():
                webbrowser.open(page.address_for_once())
            page.wait()
        except KeyboardInterrupt:
            for sentence in page.results():
                (announce if as_json else say)(sentence)


def _tell(page: Page, as_json: bool) -> None:
    original, *others = page.lineup
    if as_json:
        names = {"original": original.path.name, "others": [other.path.name for other in others]}
        print_json({"address": page.address, **names, "manner": page.manner})
        return
    say(f"{original.label} is the original, as it has the most bits per weight.")
    say(f"Open {page.address}")
    say("The address holds the key to the page: keep it to yourself. Ctrl-C ends it.")


def has_browser() -> bool:
    """Return whether a person sits here, with a browser that does not take over the terminal."""
    has_windows = sys.platform in ("win32", "darwin") or any(os.environ.get(n) for n in ("DISPLAY", "WAYLAND_DISPLAY"))
    return sys.stdout.isatty() and has_windows
