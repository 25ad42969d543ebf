"""Turns whatever a person calls a model into a file that runs here, with a context that fits.

A GGUF runs as it is. A folder or a model on the Hub is quantized to what `fit` recommends, unless a file that was made
of it is here already. The memory that is free now decides the context: it is halved until the model fits, and the user
is told. Left out: a hidden folder for such files. Files of gigabytes go into the current folder, under the name that
`thriftbit quantize` would give them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from thriftbit.advice.fit import computer_for, computer_profile, fit
from thriftbit.advice.losses import Evidence
from thriftbit.advice.options import Option, all_options, native_formats, own_formats
from thriftbit.advice.wishes import DEFAULT_CONTEXT_TOKENS, Wishes
from thriftbit.advice.wording import next_command
from thriftbit.errors import ThriftbitError
from thriftbit.library.inventory import check_can_chat
from thriftbit.library.locate import LITTLE_BYTES, obtain
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
_FINGERPRINT = "thriftbit.source.fingerprint"

Confirm = Callable[[str], bool]


@dataclass(frozen=True)
class Ready:
    """path: of a GGUF. context_tokens: the context that fits into memory. threads: the number that was measured as the
    fastest here; None if nothing was measured."""

    path: Path
    context_tokens: int
    threads: int | None


def ready_to_run(
    source: str,
    *,
    context_tokens: int | None = None,
    offline: bool = False,
    confirm: Confirm,
    progress: Progress = no_progress,
) -> Ready:
    """Return a file of the model that runs here. It is made if none is here.

    source: whatever `locate` understands. context_tokens: the wanted context. confirm: is asked before much is
    downloaded or written. Raises ThriftbitError for a model that is missing, damaged or does not fit, and if the user
    does not agree."""
    source = obtain(source, to_run=True, offline=offline, confirm=confirm)
    path = Path(source)
    if not path.is_file():
        path = _made_of(source, context_tokens, offline, confirm, progress)
    check_can_chat(path)
    profile, _ = computer_profile(None)
    return Ready(path, context_that_fits(path, context_tokens), profile.best_threads)


def context_that_fits(path: Path, wanted: int | None) -> int:
    """Return the tokens of context that fit into free memory: as many as wanted if possible. Raises ThriftbitError if
    the model does not fit even with a short context."""
    outline = open_outline(path)
    option = _option(outline, wanted or DEFAULT_CONTEXT_TOKENS)
    made_for = option.shape.context_tokens
    context = asked = min(wanted or DEFAULT_CONTEXT_TOKENS, made_for or (1 << 31))
    if wanted and asked < wanted:
        _logger.info(f"{path.name} was made for a context of {made_for:,} tokens and gets that length.")
    while option.place.where == "no" and context > LEAST_CONTEXT_TOKENS:
        context = max(LEAST_CONTEXT_TOKENS, context // 2)
        option = _option(outline, context)
    if option.place.where == "no":
        raise ThriftbitError(_too_large(path, option, context))
    if option.place.where == "unknown":
        _logger.info(f"Note: it is not known whether {path.name} fits into memory.")
    if context < asked:
        _logger.info(
            f"A context of {asked:,} tokens does not fit into the memory that is free now; it gets {context:,}."
        )
    return context


def fit_together(paths: Sequence[Path], context_tokens: int) -> bool:
    """Return whether all files fit into free memory together, each with its own context. Returns True if that cannot be
    told."""
    places = [_option(open_outline(path), context_tokens).place for path in paths]
    room = computer_for(*computer_profile(None), Wishes()).room
    main, gpu = sum(place.main_bytes for place in places), sum(place.gpu_bytes for place in places)
    if room.main is None:
        return True
    return main + gpu <= room.main if room.shared else main <= room.main and gpu <= room.gpu


def _option(outline: Outline, context_tokens: int) -> Option:
    """Return the option of the file as it is, on this computer."""
    wishes = Wishes(context_tokens=context_tokens)
    computer = computer_for(*computer_profile(None), wishes)
    return all_options(outline, computer, wishes, Evidence((), "", wishes.domain), as_it_is=True)[0]


def _too_large(path: Path, option: Option, context: int) -> str:
    computer = computer_for(*computer_profile(None), Wishes())
    return (
        f"{path}: takes {describe_bytes(option.place.main_bytes)} of memory even with a context of {context:,} tokens, "
        f"and {describe_bytes(computer.room.main or 0)} can be used now. Close other programs, or take a smaller file: "
        "`thriftbit fit` shows which"
    )


def _made_of(
    source: str,
    context_tokens: int | None,
    offline: bool,
    confirm: Confirm,
    progress: Progress,
) -> Path:
    """Return a file of a folder or of a model on the Hub: an existing one, or a new one in the precision that `fit`
    recommends."""
    advice = fit(source, Wishes(context_tokens=context_tokens), offline=offline)
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
    files = sorted(Path().glob("*.gguf"), key=lambda file: (file.name != f"{name}-{preferred}.gguf", -_size(file)))
    for file in files:
        try:
            if (
                read_parts(file)[0].metadata.get(_FINGERPRINT) == model.fingerprint
                and _option(open_outline(file), LEAST_CONTEXT_TOKENS).place.where != "no"
            ):
                yield file
        except (ThriftbitError, OSError):
            continue


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
