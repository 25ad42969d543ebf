"""`thriftbit chat`: talk to a model, on this computer alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

import thriftbit
from thriftbit.cli.completion import complete_models
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
from thriftbit.cli.printing import notes
from thriftbit.cli.questions import choose_model, make_ready
from thriftbit.cli.waiting import Waiting
from thriftbit.errors import UsageError

if TYPE_CHECKING:
    from thriftbit.machine.running_plan import PlanWishes


@click.command(short_help="Talk to a model, on this computer alone.")
@click.argument("model", metavar="[MODEL]", required=False, shell_complete=complete_models)
@click.option("-p", "--prompt", metavar="TEXT", help="Answer this, and leave. Piped text is added to it.")
@click.option("--system", default="", metavar="TEXT", help="The system prompt: the model reads it first.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the answers, for example temperature=0.2.",
)
@click.option(
    "--context",
    "context_tokens",
    type=Tokens(),
    metavar="TOKENS",
    help="Length of the context, in tokens; 8k by default.",
)
@click.option("--load", "conversation_file", type=click.Path(path_type=Path), help="Go on with a saved conversation.")
@click.option("-c", "--continue", "goes_on", is_flag=True, help="Go on with the conversation that was saved last.")
@click.option("--plain", is_flag=True, help="Show answers as they are written, without Markdown.")
@running_options
@threads_option
@full_speed_option
@unload_option
@yes_option
@offline_option
@json_option
def chat(
    model: str | None,
    prompt: str | None,
    system: str,
    assignments: tuple[str, ...],
    context_tokens: int | None,
    conversation_file: Path | None,
    goes_on: bool,
    plain: bool,
    running: PlanWishes,
    threads: int | None,
    full_speed: bool,
    unload_after_minutes: float | None,
    yes: bool,
    offline: bool,
    as_json: bool,
) -> int:
    """Talk to MODEL. Nothing leaves this computer, and nothing is kept unless you save it.

    MODEL is a GGUF file, a name that `thriftbit ls` shows, or one on the Hugging Face Hub (owner/name, or
    owner/name:Q4_K_M of a repository with GGUF files). If the model is not quantized, Thriftbit first makes the file
    that `thriftbit fit` recommends; it asks before it downloads or writes much. Without MODEL, you choose one of the
    models on this disk.

    In a chat, /help shows what you can do. With -p, or with text piped into it, the answer is on the standard output
    and nothing else.

    \b
    Examples:
      thriftbit chat
      thriftbit chat my-model-Q4_K_M.gguf
      thriftbit chat unsloth/Qwen3-8B-GGUF:Q4_K_M
      thriftbit chat -c
      thriftbit chat HuggingFaceTB/SmolLM2-135M-Instruct
      thriftbit chat my-model-Q4_K_M.gguf -p "A name for a cat?" --set temperature=1.2
      thriftbit chat my-model-Q4_K_M.gguf -p "Sum this up:" < report.txt > summary.txt
    """
    from thriftbit.runtime.chat_settings import parse_assignments

    settings = parse_assignments(assignments)
    question = _question(prompt, as_json)
    if goes_on:
        conversation_file, last_model = _last(conversation_file)
        model = model or last_model
    model = model or choose_model()
    ready = make_ready(model, context_tokens=context_tokens, running=running, offline=offline, yes=yes)
    waiting = Waiting(notes, lambda: f"loading {ready.path.name}")
    with (
        waiting,
        thriftbit.Conversation(
            ready.path,
            plan=ready.plan,
            threads=threads or ready.threads,
            polite=not full_speed,
            unload_after_minutes=minutes_to_keep(unload_after_minutes, full_speed),
            system=system,
            settings=settings,
        ) as conversation,
    ):
        waiting.end()
        if conversation_file:
            from thriftbit.runtime.conversation_file import load

            load(conversation, conversation_file)
        if question is not None:
            from thriftbit.cli.chat_screen import answer_once

            return answer_once(conversation, question, as_json)
        from thriftbit.cli.chat_session import converse

        converse(conversation, plain=plain, file=conversation_file)
    return 0


def _last(named: Path | None) -> tuple[Path, str]:
    """Return the conversation that was saved last, and its model."""
    from thriftbit.runtime.conversation_file import last_saved

    if named is not None:
        raise UsageError("-c and --load both name a conversation; give one of them")
    last = last_saved()
    if last is None:
        raise UsageError("no conversation was saved yet, or its file is gone; /save FILE in a chat keeps one")
    return last


def _question(prompt: str | None, as_json: bool) -> str | None:
    """Return what a script asks; None for a person at a terminal."""
    if prompt is None and sys.stdin.isatty():
        if as_json or not sys.stdout.isatty():
            raise UsageError("a chat takes a terminal; for a script, give the question with -p or pipe it in")
        return None
    piped = "" if sys.stdin.isatty() else sys.stdin.buffer.read().decode(errors="replace")
    question = "\n\n".join(part for part in (prompt, piped.rstrip("\n")) if part and part.strip())
    if not question:
        raise UsageError("there is no question: give one with -p, or pipe it in")
    return question
