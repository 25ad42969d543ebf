"""Turns whatever a person calls a model into a file that runs here, and makes the plan by which it runs.

A GGUF runs as it is. A folder or a model on the Hub is quantized to what `fit` recommends, unless a file that was made
of it is here already. The memory that is free now decides how it runs: the types of its cache and its place
(`plans.py`). If that is not enough, the context is halved until the model fits, and the user is told. Left out: a
hidden folder for such files. Files of gigabytes go into the current folder, under the name that `thriftbit quantize`
would give them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from thriftbit.advice.fit import computer_for, computer_profile, fit
from thriftbit.advice.losses import Evidence
from thriftbit.advice.options import Option, all_options, levels_of, native_formats, own_formats
from thriftbit.advice.wishes import DEFAULT_CONTEXT_TOKENS, Wishes
from thriftbit.advice.wording import next_command
from thriftbit.errors import ThriftbitError
from thriftbit.library.inventory import check_can_chat
from thriftbit.library.locate import LITTLE_BYTES, obtain
from thriftbit.machine.profile import Profile
from thriftbit.machine.running_plan import NO_WISHES, PlanWishes, RunningPlan
from thriftbit.progress import Progress, no_progress
from thriftbit.quantization.importance_needed import NeedsImportanceError
from thriftbit.quantization.plan import Plan, make_plan
from thriftbit.quantization.presets import PRESETS
from thriftbit.quantization.quantize import quantize
from thriftbit.sizes import describe_bytes
from thriftbit.sources.gguf_source import read_parts
from thriftbit.sources.model import Model
from thriftbit.sources.open_model import open_model
from thriftbit.sources.remote import Outline, open_outline

_logger = logging.getLogger(__name__)

LEAST_CONTEXT_TOKENS = 512
_PLACEMENT_LEFT_OPEN: dict[str, Any] = {
    "gpu_layers": None, "expert_layers": None, "experts_in_main": False, "all_on_gpu": False,
}  # fmt: skip
_FINGERPRINT = "thriftbit.source.fingerprint"

Confirm = Callable[[str], bool]


@dataclass(frozen=True)
class Ready:
    """path: of a GGUF. plan: how it runs on this computer now. layers: that it has. threads: measured best here; None
    if nothing was measured."""

    path: Path
    plan: RunningPlan
    layers: int
    threads: int | None


def ready_to_run(
    source: str,
    *,
    context_tokens: int | None = None,
    running: PlanWishes = NO_WISHES,
    offline: bool = False,
    confirm: Confirm,
    progress: Progress = no_progress,
) -> Ready:
    """Return a file of the model that runs here, and how. It is made if none is here.

    source: whatever `locate` understands. context_tokens: the wanted context. running: what is decided of how it runs.
    confirm: is asked before much is downloaded or written. Raises ThriftbitError for a model that is missing, damaged
    or does not fit, and if the user does not agree."""
    source = obtain(source, to_run=True, offline=offline, confirm=confirm)
    path = Path(source)
    if not path.is_file():
        path = _made_of(source, context_tokens, running, offline, confirm, progress)
    check_can_chat(path)
    return plan_for(path, context_tokens, running)


def plan_for(path: Path, wanted: int | None, running: PlanWishes = NO_WISHES) -> Ready:
    """wanted: tokens of context. Return the file with the plan that suits it in the memory that is free now: with as
    much of the context as fits. What is not as it was wished is logged. Raises ThriftbitError if the model does not
    even fit with a little, UsageError for a cache that its architecture cannot take."""
    outline, here = open_outline(path), computer_profile(None)
    option = _option(outline, here, wanted, running)
    made_for = option.shape.context_tokens
    context = asked = min(wanted or DEFAULT_CONTEXT_TOKENS, made_for or (1 << 31))
    if wanted and asked < wanted:
        _logger.info(f"{path.name} was made for a context of {made_for:,} tokens and gets that length.")
    if option.place.where == "no" and running.places:
        _logger.info("It does not fit as --placement asks, and goes where there is room.")
        running = replace(running, **_PLACEMENT_LEFT_OPEN)
        option = _option(outline, here, context, running)
    while option.place.where == "no" and context > LEAST_CONTEXT_TOKENS:
        context = max(LEAST_CONTEXT_TOKENS, context // 2)
        option = _option(outline, here, context, running)
    if option.place.where == "no":
        raise ThriftbitError(_too_large(path, option, context, here))
    if option.place.where == "unknown":
        _logger.info(f"Note: it is not known whether {path.name} fits into memory.")
    if context < asked:
        _logger.info(
            f"A context of {asked:,} tokens does not fit into the memory that is free now; it gets {context:,}."
        )
    return Ready(path, option.plan, option.place.layers, here[0].best_threads)


def fit_together(paths: Sequence[Path], plans: Sequence[RunningPlan]) -> bool:
    """Whether all fit into the memory that is free now, together and each as planned; where that cannot be told,
    yes."""
    here = computer_profile(None)
    places = [
        _option(open_outline(path), here, plan.context_tokens, _exactly(plan)).place
        for path, plan in zip(paths, plans, strict=True)
    ]
    room = computer_for(*here, Wishes()).room
    main, gpu = sum(place.main_bytes for place in places), sum(place.gpu_bytes for place in places)
    if room.main is None:
        return True
    return main + gpu <= room.main if room.shared else main <= room.main and gpu <= room.gpu


def _exactly(plan: RunningPlan) -> PlanWishes:
    experts = plan.expert_layers or None
    return PlanWishes(plan.key_type, plan.value_type, None if experts else plan.gpu_layers, experts, draft=plan.draft)


def _option(outline: Outline, here: tuple[Profile, bool], context_tokens: int | None, running: PlanWishes) -> Option:
    """Return the file as it is, on this computer."""
    wishes = Wishes(context_tokens=context_tokens, running=running)
    computer = computer_for(*here, wishes)
    levels = levels_of(outline, as_it_is=True)
    return all_options(outline, computer, wishes, Evidence((), "", wishes.domain), levels)[0]


def _too_large(path: Path, option: Option, context: int, here: tuple[Profile, bool]) -> str:
    computer = computer_for(*here, Wishes())
    return (
        f"{path}: takes {describe_bytes(option.place.main_bytes)} of memory even with a context of {context:,} tokens, "
        f"and {describe_bytes(computer.room.main or 0)} can be used now. Close other programs, or take a smaller file: "
        "`thriftbit fit` shows which"
    )


def _made_of(
    source: str,
    context_tokens: int | None,
    running: PlanWishes,
    offline: bool,
    confirm: Confirm,
    progress: Progress,
) -> Path:
    """Return a file of a folder or of a model on the Hub: an existing one, or a new one in the precision that `fit`
    recommends."""
    advice = fit(source, Wishes(context_tokens=context_tokens, running=running), offline=offline)
    option = advice.choice.option
    model = _opened(source)
    name = Path(source).resolve().name.partition("@")[0]
    for found in _already_made(name, model, option.name if option else ""):
        _logger.info(f"Using {found}, which is here already and was made of {source}.")
        return found
    if option is None:
        rescue = f" {advice.rescue[0]}" if advice.rescue else ""
        raise ThriftbitError(f"{source}: no precision of it fits this computer now.{rescue}")
    if option.name in PRESETS and PRESETS[option.name].wants_importance:
        raise NeedsImportanceError(
            f"{source}: `thriftbit fit` recommends {option.name}, which needs importance data. Finding that out "
            f"takes a while: make the file first, with: {next_command(advice)}"
        )
    target = Path(f"{name}-{option.name}.gguf")
    size_bytes = round(option.size.value or 0)
    words = f"{source} is quantized to {option.name}, which `thriftbit fit` recommends: {target}, "
    words += describe_bytes(size_bytes)
    if model is None:
        download_bytes = own_formats(advice.outline)[1].weights_bytes(advice.outline.model)
        words += f", after a download of about {describe_bytes(download_bytes)}"
    _logger.info(f"{words}.")
    if (model is None or size_bytes > LITTLE_BYTES) and not confirm("Go on?"):
        raise ThriftbitError("nothing was downloaded or written")
    model = model or open_model(source, offline=offline)
    plan = make_plan(model, option.name) if option.name in PRESETS else _native_plan(advice.outline)
    quantize(model, plan, target, progress=progress)
    return target


def _native_plan(outline: Outline) -> Plan:
    native = native_formats(outline)
    assert native is not None
    return native[1]


def _opened(source: str) -> Model | None:
    """Return the model, None if its weights are not on this disk."""
    try:
        return open_model(source, offline=True)
    except ThriftbitError:
        if Path(source).expanduser().exists():
            raise
        return None


def _already_made(name: str, model: Model | None, preferred: str) -> Iterator[Path]:
    """Yield files on this disk that were made of the model: the recommended precision first, then the largest first. A
    file states which weights it was made of, so nothing is yielded if the model's weights are not here to compare."""
    if model is None:
        return
    here = computer_profile(None)
    files = sorted(Path().glob("*.gguf"), key=lambda file: (file.name != f"{name}-{preferred}.gguf", -_size(file)))
    for file in files:
        try:
            if (
                read_parts(file)[0].metadata.get(_FINGERPRINT) == model.fingerprint
                and _option(open_outline(file), here, LEAST_CONTEXT_TOKENS, NO_WISHES).place.where != "no"
            ):
                yield file
        except (ThriftbitError, OSError):
            continue


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
