"""What `thriftbit fit` prints: the table, the recommended row, the reason, the neighbours, the next command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.text import Text

from thriftbit.cli.printing import output, print_json, printable, say, show, table
from thriftbit.sizes import describe_bytes, describe_count

if TYPE_CHECKING:
    from thriftbit.advice.fit import Advice
    from thriftbit.advice.options import Option
    from thriftbit.advice.ranking import Ranked
    from thriftbit.machine.prediction import Prediction

_NARROW = 100  # characters, below which columns are left out
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


def print_advice(advice: Advice, as_json: bool) -> None:
    if as_json:
        print_json(advice_document(advice))
        return
    from thriftbit.advice.wording import reason

    for line in _headline(advice):
        _paragraph(line)
    say("")
    _show_options(advice)
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
    cache = "" if advice.wishes.cache_type == "F16" else f", kept in {advice.wishes.cache_type}"
    yield f"{own}: {memory} for models{words}{card}. Context: {advice.context_tokens:,} tokens{cache}."
    if advice.outline.born is not None:
        yield advice.outline.born.advice
    if advice.outline.obstacle:
        yield advice.outline.obstacle
    if not advice.is_measured:
        yield "Speeds are unknown: measure this computer once with `thriftbit doctor --measure`."


def _show_options(advice: Advice) -> None:
    from thriftbit.advice.wording import describe_loss

    wide = output.width >= _NARROW
    columns: list[tuple[str, Callable[[Option], str]]] = [
        (" ", lambda option: _CHOSEN if option is advice.choice.option else ""),
        ("precision", lambda option: option.name),
        (">size", _size),
        (">memory", _memory),
        ("fits", _fits),
        (">tokens/s", _speed),
        (">loss", lambda option: describe_loss(option.loss)),
        ("loss known from", lambda option: _SHORT_PROVENANCE[option.loss.provenance]),
    ]
    if not any(option.speed.value for option in advice.options):
        columns = [column for column in columns if column[0] != ">tokens/s"]
    if not wide:
        columns.pop()
    block = table(
        [heading for heading, _ in columns], [[cell(option) for _, cell in columns] for option in advice.options]
    )
    for column in block.columns:
        column.no_wrap = True
    block.padding = (0, 2, 0, 0)
    chosen = advice.choice.option
    for index, option in enumerate(advice.options):
        if option is chosen:
            block.rows[index].style = "bold"
        elif not option.fits:
            block.rows[index].style = "dim"
    show(block)
    if not wide:
        sources = dict.fromkeys(option.loss.provenance for option in advice.options if option.loss.share.value)
        if sources:
            _paragraph(f"Losses: {', '.join(sources)}.", style="dim")


def _size(option: Option) -> str:
    return ("" if option.size.is_exact else "~") + describe_bytes(round(option.size.value or 0))


def _memory(option: Option) -> str:
    memory = option.memory.lasting.value
    return "unknown" if memory is None else describe_bytes(round(memory))


def _fits(option: Option) -> str:
    place = option.place
    if place.where == "partly":
        return f"{place.gpu_layers}/{place.layers + 1} on GPU"
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
    from thriftbit.advice.wording import difference, next_command, reason

    label = "Take" if not advice.choice.misses else "The best there is"
    _paragraph(f"{label}: {option.name}. {reason(advice)}", style="bold")
    if advice.choice.misses:
        _paragraph(f"But {' and '.join(advice.choice.misses)}.")
    choice = advice.choice
    if choice.better:
        _paragraph(f"Better: {difference(advice, choice.better, better=True)}")
    if choice.cheaper:
        _paragraph(f"Cheaper: {difference(advice, choice.cheaper, better=False)}")
    for sentence in _notes(option):
        _paragraph(sentence, style="dim")
    command = next_command(advice)
    if command:
        say("\nNext:")
        say(f"  {command}")


def _notes(option: Option) -> Iterator[str]:
    if option.speed.value is not None and option.first_token.value is not None:
        yield (f"Speed: {option.speed.reason}. The answer to 512 tokens begins after {_seconds(option.first_token)}.")
    if option.energy.value is not None:
        yield f"Energy: about {option.energy.value:.2g} joules for a token; {option.energy.reason}."
    if option.loss.share.value:
        yield f"Loss: how much perplexity rises; {_interval(option.loss.share)}, from {option.loss.share.reason}."
    if option.memory.copied and option.memory.resident.value:
        yield (
            f"A system's monitor may show up to {describe_bytes(round(option.memory.resident.value))}: some weights "
            "are held twice for speed, and the file's copy makes room when it has to."
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
    lines = Text(printable(text), style=style).wrap(output, output.width - 2)
    for number, line in enumerate(lines):
        line.rstrip()
        show(line if number == 0 else Padding(line, (0, 0, 0, 2), expand=False))


def advice_document(advice: Advice) -> dict[str, Any]:
    from thriftbit.advice.wording import difference, next_command, reason

    choice, outline = advice.choice, advice.outline
    return {
        "model": outline.model.source,
        "architecture": outline.model.architecture,
        "parameters": outline.model.parameters,
        "active_parameters": round(advice.options[0].shape.active_parameters),
        "context_tokens": advice.context_tokens,
        "cache_type": advice.wishes.cache_type,
        "born_small": outline.born and {**asdict(outline.born), "advice": outline.born.advice},
        "obstacle": outline.obstacle,
        "memory_for_models_bytes": advice.room.main,
        "gpu_memory_for_models_bytes": advice.room.gpu,
        "measured": advice.is_measured,
        "options": [_option_document(option) for option in advice.options],
        "recommended": choice.option and choice.option.name,
        "reason": reason(advice),
        "misses": list(choice.misses),
        "better": choice.better and difference(advice, choice.better, better=True),
        "cheaper": choice.cheaper and difference(advice, choice.cheaper, better=False),
        "would_fit": list(advice.rescue),
        "next": next_command(advice),
    }


def _option_document(option: Option) -> dict[str, Any]:
    memory, place = option.memory, option.place
    return {
        "precision": option.name,
        "bits_per_weight": round(option.bits_per_weight, 4),
        "size_bytes": _prediction_document(option.size),
        "memory_bytes": {
            "weights": memory.weights,
            "copied_weights": memory.copied,
            "cache": memory.cache,
            "compute": memory.compute,
            "other": memory.other,
            "lasting": _prediction_document(memory.lasting),
            "resident": _prediction_document(memory.resident),
        },
        "fits": place.where,
        "gpu_layers": place.gpu_layers,
        "tokens_per_second": _prediction_document(option.speed) | {"provenance": option.speed_provenance},
        "prompt_tokens_per_second": _prediction_document(option.prefill),
        "first_token_seconds": _prediction_document(option.first_token),
        "joules_per_token": _prediction_document(option.energy),
        "loss": _prediction_document(option.loss.share) | {"provenance": option.loss.provenance},
        "as_made": option.native,
    }


def _prediction_document(prediction: Prediction) -> dict[str, Any]:
    return asdict(prediction)


def print_ranking(ranked: Sequence[Ranked], as_json: bool) -> None:
    if as_json:
        print_json({"models": [_ranked_document(each) for each in ranked]})
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
        _paragraph(f"Take: {best.name}, the largest that fits and is fast enough here.", style="bold")
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


def _ranked_document(each: Ranked) -> dict[str, Any]:
    option = each.option and _option_document(each.option)
    document = {"model": each.name, "path": str(Path(each.path)), "precision": each.level}
    return document | {"parameters": each.parameters, "option": option, "problem": each.problem}
