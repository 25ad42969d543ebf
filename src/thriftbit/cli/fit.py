"""`thriftbit fit`: which precision of a model suits this computer."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import click
from rich.padding import Padding
from rich.text import Text

import thriftbit
from thriftbit.cli.completion import complete_models
from thriftbit.cli.options import Share, Size, Tokens, json_option, offline_option, running_options
from thriftbit.cli.printing import notes, output, print_json, say, show, table
from thriftbit.cli.questions import offer_measuring
from thriftbit.cli.waiting import Waiting
from thriftbit.sizes import describe_bytes, describe_count
from thriftbit.strangers import harmless

if TYPE_CHECKING:
    from thriftbit.advice.fit import Advice
    from thriftbit.advice.options import Option
    from thriftbit.advice.ranking import Ranked
    from thriftbit.machine.prediction import Prediction
    from thriftbit.machine.running_plan import PlanWishes


NOTHING_FITS, CANNOT_TELL = 3, 4


@click.command(short_help="Show which precision of a model suits this computer.")
@click.argument("source", metavar="[MODEL]", shell_complete=complete_models, required=False)
@click.option(
    "--task", default="chat", show_default=True, metavar="TASK", help="chat, code, math, science, or a text of yours."
)
@click.option(
    "--min-speed", type=click.FloatRange(min=0), metavar="TOKENS", help="Minimum speed of writing, in tokens/s."
)
@click.option("--max-loss", type=Share(), metavar="SHARE", help="How much perplexity may rise, for example 1%.")
@click.option(
    "--context",
    "context_tokens",
    type=Tokens(),
    metavar="TOKENS",
    help="Length of the context, in tokens, for example 16k; 8k by default.",
)
@click.option("--leave-free", type=Size(least=0), metavar="SIZE", help="Memory for other programs, for example 4GB.")
@running_options
@click.option(
    "--battery", is_flag=True, help="Save energy: recommend what takes the least work of all that is good enough."
)
@click.option(
    "--machine",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="The profile of another computer, from `thriftbit doctor --json`.",
)
@click.option("--all", "show_all", is_flag=True, help="Show every precision, not only those worth choosing.")
@offline_option
@json_option
def fit(
    source: str | None,
    task: str,
    min_speed: float | None,
    max_loss: float | None,
    context_tokens: int | None,
    leave_free: int | None,
    running: PlanWishes,
    battery: bool,
    machine: str | None,
    show_all: bool,
    offline: bool,
    as_json: bool,
) -> int:
    """Show the precisions of MODEL that are worth choosing on this computer, and recommend one.

    For each precision, from the largest down, you see the size, the memory it takes, whether it fits, how fast it
    writes and what it loses. At most eight are shown, and none that another beats in everything; --all shows the rest.

    MODEL is a folder, a GGUF file, the name of a model on the Hugging Face Hub (owner/name), or a GGUF there
    (owner/name/file.gguf). Only its description is read, never its weights. Without MODEL, the models on this disk are
    ranked.

    Every number says where it comes from. Speeds need `thriftbit doctor --measure`, once. The exit code is 3 where
    nothing fits, and 4 where that cannot be told.

    \b
    Examples:
      thriftbit fit Qwen/Qwen2.5-7B-Instruct
      thriftbit fit ./my-model --task code --max-loss 1% --context 16k
      thriftbit fit ./my-model --min-speed 10 --leave-free 4GB
      thriftbit fit Qwen/Qwen2.5-7B-Instruct --machine laptop.json
      thriftbit fit
    """
    wishes = thriftbit.Wishes(
        task=task,
        min_speed=min_speed,
        max_loss=max_loss,
        context_tokens=context_tokens,
        leave_free_bytes=leave_free,
        running=running,
        saves_energy=battery,
    )
    if machine is None:
        offer_measuring(as_json)
    if source is None:
        from thriftbit.advice.ranking import rank_local

        ranked = rank_local(wishes, machine=machine)
        print_ranking(ranked, as_json)
        return 0 if any(each.fits for each in ranked) else NOTHING_FITS
    with Waiting(notes, lambda: f"looking at {source}"):
        advice = thriftbit.fit(source, wishes, machine=machine, offline=offline)
    print_advice(advice, as_json, show_all=show_all)
    if advice.is_undecided:
        return CANNOT_TELL
    return 0 if advice.fits else NOTHING_FITS


# The width of the terminal, in characters, below which the table leaves out a column
_LEFT_OUT = ((116, "loss known from"), (98, "you may notice"), (78, ">memory"))
_CHOSEN = "→"
_SHORT_PROVENANCE = {
    "measured here": "measured here",
    "measured elsewhere": "measured elsewhere",
    "predicted": "predicted, own map",
    "measured on its family": "measured, family",
    "from the literature": "literature",
    "unknown": "",
    "by definition": "by definition",
}
_FITS = {"GPU": "on GPU", "CPU": "yes", "no": "no", "unknown": "unknown"}


def print_advice(advice: Advice, as_json: bool, *, show_all: bool = False) -> None:
    if as_json:
        from thriftbit.advice.documents import advice_document

        print_json(advice_document(advice))
        return
    from thriftbit.advice.wording import reason

    for line in _headline(advice):
        _paragraph(line)
    say("")
    _show_options(advice, advice.options if show_all else advice.shown)
    say("")
    option = advice.choice.option
    if option is None:
        _paragraph(reason(advice), style="bold")
        for sentence in advice.rescue:
            _paragraph(f"- {sentence}")
        return
    _show_choice(advice, option)


def _headline(advice: Advice) -> Iterator[str]:
    model = advice.outline.model
    option = advice.options[0]
    active = option.shape.active_parameters
    mixture = f", {describe_count(round(active))} of them for each token" if active < 0.9 * model.parameters else ""
    yield f"{model.source}: {describe_count(model.parameters)} parameters{mixture} ({model.architecture})"
    room = advice.room
    memory = "an unknown amount of memory" if room.main is None else f"{describe_bytes(room.main)} of memory"
    card = f", {describe_bytes(room.gpu)} on {room.gpu_name}" if room.gpu else ""
    own = "This computer" if advice.is_here else "That computer"
    words = f" ({room.words})" if room.main is not None else ""
    yield f"{own}: {memory} for models{words}{card}. Context: {advice.context_tokens:,} tokens."
    if room.unused_gpu:
        yield f"Note: {room.unused_gpu} is of no use here: the built-in llama.cpp does not compute on it."
    asked = advice.wishes.context_tokens
    if asked is not None and asked > advice.context_tokens:
        yield f"Note: you asked for {asked:,} tokens; this model was made for {advice.context_tokens:,} and gets those."
    if advice.outline.born is not None:
        yield advice.outline.born.advice
    if advice.outline.note:
        yield advice.outline.note
    if advice.outline.obstacle:
        yield advice.outline.obstacle
    if not advice.is_measured:
        yield "Speeds are unknown: measure this computer once with `thriftbit doctor --measure`."


def _show_options(advice: Advice, options: Sequence[Option]) -> None:
    from thriftbit.advice.wording import describe_effect, describe_loss

    chosen = advice.choice.option
    columns: list[tuple[str, Callable[[Option], str]]] = [
        ("precision", lambda option: f"{_CHOSEN if option is chosen else ' '} {_names(option)}"),
        (">size", _size),
        (">memory", _memory),
        ("fits", _fits),
        ("context in", _cache),
        (">tokens/s", _speed),
        (">loss", lambda option: describe_loss(option.loss)),
        ("you may notice", lambda option: describe_effect(option.loss)),
        ("loss known from", lambda option: _SHORT_PROVENANCE[option.loss.provenance]),
    ]
    left_out = {heading for width, heading in _LEFT_OUT if output.width < width}
    if all(option.plan.is_cache_usual for option in options):
        left_out.add("context in")
    if not any(option.speed.value for option in options):
        left_out.add(">tokens/s")
    columns = [column for column in columns if column[0] not in left_out]
    rows = [[cell(option) for _, cell in columns] for option in options]
    styles = {n: "dim" for n, option in enumerate(options) if not option.fits}
    styles |= {n: "bold" for n, option in enumerate(options) if option is chosen}
    show(table([heading for heading, _ in columns], rows, styles))
    if len(options) < len(advice.options):
        _paragraph(f"{len(advice.options) - len(options)} more with --all.", style="dim")
    if "loss known from" in left_out:
        sources = dict.fromkeys(option.loss.provenance for option in options if option.loss.share.value)
        if sources:
            _paragraph(f"Losses: {', '.join(sources)}.", style="dim")


def _names(option: Option) -> str:
    return " = ".join((option.name, *option.same))


def _size(option: Option) -> str:
    return ("" if option.size.is_exact else "~") + describe_bytes(round(option.size.value or 0))


def _memory(option: Option) -> str:
    memory = option.memory.lasting.value
    return "unknown" if memory is None else describe_bytes(round(memory))


def _cache(option: Option) -> str:
    plan = option.plan
    return plan.key_type if plan.key_type == plan.value_type else f"{plan.key_type}/{plan.value_type}"


def _fits(option: Option) -> str:
    place = option.place
    if place.where == "partly":
        return f"{place.gpu_layers}/{place.layers + 1} on GPU"
    if place.where == "experts":
        return f"GPU, {place.expert_layers}/{place.layers} experts not"
    return _FITS[place.where]


def _speed(option: Option) -> str:
    from thriftbit.advice.wording import describe_number

    speed = option.speed
    if speed.value is None or speed.low is None or speed.high is None:
        return "" if not option.fits else "unknown"
    if option.speed_provenance == "measured here":
        return describe_number(speed.value)
    return f"~{describe_number(speed.value)} ({describe_number(speed.low)}–{describe_number(speed.high)})"


def _show_choice(advice: Advice, option: Option) -> None:
    from thriftbit.advice.wording import difference, next_command, reason, running_command

    label = "Take" if not advice.choice.misses else "The best there is"
    _paragraph(f"{label}: {option.name}. {reason(advice)}", style="bold")
    if advice.choice.misses:
        _paragraph(f"But {' and '.join(advice.choice.misses)}.")
    choice = advice.choice
    if choice.better:
        _paragraph(f"Better: {difference(advice, choice.better, better=True)}")
    if choice.cheaper:
        _paragraph(f"Cheaper: {difference(advice, choice.cheaper, better=False)}")
    if choice.faster:
        _paragraph(f"Faster: {difference(advice, choice.faster, better=False)}")
    for sentence in _notes(option):
        _paragraph(sentence, style="dim")
    command = next_command(advice)
    if command:
        say("\nNext:")
        say(f"  {command}")
        if then := running_command(advice):
            say(f"  {then}")


def _notes(option: Option) -> Iterator[str]:
    if option.speed.value is not None and option.first_token.value is not None:
        yield (f"Speed: {option.speed.reason}. The answer to 512 tokens begins after {_seconds(option.first_token)}.")
    if option.energy.value is not None:
        yield f"Energy: about {option.energy.value:.2g} joules for a token; {option.energy.reason}."
    if option.loss.share.value:
        yield (
            f"Loss: by how much perplexity rises, how badly it predicts text. {_interval(option.loss.share)} is from "
            f"{option.loss.share.reason}."
        )
    if option.memory.copied and option.memory.resident.value:
        yield (
            f"Task managers may show up to {describe_bytes(round(option.memory.resident.value))}: the operating "
            "system also caches the file, and frees that when memory is needed."
        )


def _interval(share: Prediction) -> str:
    from thriftbit.advice.wording import describe_percent

    return f"{describe_percent(share.low or 0.0)} to {describe_percent(share.high or 0.0)}"


def _seconds(prediction: Prediction) -> str:
    from thriftbit.advice.wording import describe_number

    low, high = prediction.low or 0.0, prediction.high or 0.0
    return f"{describe_number(low)} to {describe_number(high)} seconds"


def _paragraph(text: str, style: str = "") -> None:
    """A sentence, wrapped between words; later lines are indented."""
    lines = Text(harmless(text), style=style).wrap(output, output.width - 2)
    for number, line in enumerate(lines):
        line.rstrip()
        show(line if number == 0 else Padding(line, (0, 0, 0, 2), expand=False))


def print_ranking(ranked: Sequence[Ranked], as_json: bool) -> None:
    if as_json:
        from thriftbit.advice.documents import ranking_document

        print_json(ranking_document(ranked))
        return
    if not ranked:
        _paragraph(
            "No models were found on this disk. `thriftbit find WORDS` looks on the Hub; `thriftbit fit OWNER/NAME` "
            "says which precision of a model there suits this computer."
        )
        return
    headings = ("model", "precision", ">parameters", ">size", ">memory", "fits", ">tokens/s")
    show(table(headings, [_ranked_row(each) for each in ranked]))
    best = ranked[0]
    say("")
    if best.fits:
        known = best.option is not None and best.option.speed.value is not None
        why = "the largest that fits and is fast enough here" if known else "the largest that fits here"
        _paragraph(f"Take: {best.name}, {why}.", style="bold")
        if not known:
            _paragraph("How fast it is here is not known yet: thriftbit doctor --measure")
        say(f"Next:  thriftbit chat {shlex.quote(best.name)}")
    else:
        _paragraph("None of them fits into this computer's memory.", style="bold")


def _ranked_row(each: Ranked) -> list[str]:
    option = each.option
    if option is None:
        return [each.name, each.level, "", "", "", "unknown", ""]
    return [
        each.name,
        each.level,
        describe_count(each.parameters),
        _size(option),
        _memory(option),
        _fits(option),
        _speed(option),
    ]
