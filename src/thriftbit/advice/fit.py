"""`thriftbit fit`: which precision of a model suits this computer, this task and these wishes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from thriftbit.advice.choice import Recommendation, choose
from thriftbit.advice.losses import Evidence, PredictedLoss, evidence_for
from thriftbit.advice.options import Computer, Option, all_options, levels_of, measured_speeds, measured_watts
from thriftbit.advice.rescue import what_would_fit
from thriftbit.advice.wishes import Wishes
from thriftbit.advice.wording import describe_loss, reason
from thriftbit.advice.worthwhile import worth_choosing
from thriftbit.errors import ThriftbitError
from thriftbit.library.inventory import check_can_chat
from thriftbit.library.kinds import TEXT, cannot, gguf_kind
from thriftbit.library.locate import locate
from thriftbit.machine.corrections import read_correction
from thriftbit.machine.detect import detect
from thriftbit.machine.identity import describe_machine
from thriftbit.machine.profile import Profile, load_profile, stored_profile
from thriftbit.machine.room import Room, room_in
from thriftbit.measurement.measurement import Measurement
from thriftbit.measurement.store import read, store_path
from thriftbit.notebook import html_table
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.presets import PRESETS
from thriftbit.runtime.examine import with_engine
from thriftbit.sizes import describe_bytes
from thriftbit.sources.checkpoint import CONFIG
from thriftbit.sources.model import Model
from thriftbit.sources.remote import Outline, open_outline

_NOT_PLANNED = "`thriftbit fit` is for models that write text"


@dataclass(frozen=True)
class Advice:
    """options: every precision, the largest first. choice: the recommended one. shown: the options worth choosing,
    eight at most. rescue: sentences on what would fit, if nothing does. context_tokens: planned for. is_measured:
    whether the computer's speed was measured."""

    outline: Outline
    options: tuple[Option, ...]
    choice: Recommendation
    rescue: tuple[str, ...]
    wishes: Wishes
    room: Room
    context_tokens: int
    is_here: bool
    is_measured: bool

    @property
    def shown(self) -> list[Option]:
        choice = self.choice
        return worth_choosing(self.options, (choice.option, choice.better, choice.cheaper, choice.faster))

    @property
    def fits(self) -> bool:
        return self.choice.option is not None

    @property
    def is_undecided(self) -> bool:
        """Whether it is not known if the asked speed is reached, or how much memory there is."""
        option = self.choice.option
        if option is None:
            return not self.choice.misses and any(each.place.where == "unknown" for each in self.options)
        return self.wishes.min_speed is not None and option.speed.value is None

    def __repr__(self) -> str:
        option = self.choice.option
        return f"Advice({self.outline.model.source!r}: {option.name if option else 'nothing fits'})"

    def _repr_html_(self) -> str:
        rows = [
            (
                f"→ {option.name}" if option is self.choice.option else option.name,
                describe_bytes(round(option.size.value or 0)),
                describe_bytes(round(option.memory.lasting.value)) if option.memory.lasting.value else "unknown",
                option.place.where,
                f"{option.speed.value:.3g}" if option.speed.value else "unknown",
                describe_loss(option.loss),
            )
            for option in self.shown
        ]
        headings = ("precision", "size", "memory", "fits", "tokens/s", "loss")
        return html_table(f"{self.outline.model.source}: {reason(self)}", headings, rows)


def fit(
    source: str | Path,
    wishes: Wishes | None = None,
    *,
    machine: str | Path | None = None,
    offline: bool = False,
) -> Advice:
    """Return every precision of a model on a computer, and the one that suits.

    source: whatever `locate` understands, or a config.json; weights are not needed. machine: a profile of another
    computer, as `thriftbit doctor --json` prints it.
    Raises ThriftbitError for a model that cannot be described and a profile that cannot be read."""
    wishes = wishes or Wishes()
    outline = _outline(source, offline)
    profile, is_here = computer_profile(machine)
    rows = _stored_rows()
    evidence = evidence_for(outline.model, rows, wishes.domain, _map_of(outline.model))

    levels = levels_of(outline)

    def evaluate(wanted: Wishes) -> list[Option]:
        computer = computer_for(profile, is_here, wanted, rows)
        options = all_options(outline, computer, wanted, evidence, levels)
        return _with_measured_speeds(options, rows, evidence, is_here)

    options = evaluate(wishes)
    choice = choose(options, wishes)
    room = room_in(profile.facts, wishes.leave_free_bytes, is_here=is_here)
    context = wishes.context(options[0].shape.context_tokens)
    rescue = what_would_fit(evaluate, wishes, room, context) if not any(o.fits for o in options) else []
    return Advice(
        outline=outline,
        options=tuple(options),
        choice=choice,
        rescue=tuple(rescue),
        wishes=wishes,
        room=room,
        context_tokens=context,
        is_here=is_here,
        is_measured=bool(profile.rates or profile.bandwidth),
    )


def _outline(source: str | Path, offline: bool) -> Outline:
    """Return the description of whatever `locate` understands. Raises ThriftbitError for what is no language model."""
    located = locate(source, offline=offline).source
    path = Path(located)
    if path.is_dir() or (path.is_file() and path.name != CONFIG):
        check_can_chat(path, _NOT_PLANNED)
    outline = open_outline(located, offline=offline)
    if outline.file_bytes:
        model = outline.model
        kind = gguf_kind(
            {"general.architecture": model.architecture, **model.metadata}, {t.name for t in model.tensors}
        )
        if kind != TEXT:
            raise cannot(kind, located, _NOT_PLANNED)
    return outline


def computer_profile(machine: str | Path | None) -> tuple[Profile, bool]:
    """Return the profile of the computer in question, and whether that is this one. A computer that was never measured
    has a profile without measurements."""
    if machine is not None:
        return load_profile(Path(machine)), False
    facts = detect()
    if facts.gpus:  # of use only if the engine computes on them
        facts = with_engine(facts)
    return stored_profile(facts) or Profile(facts), True


def computer_for(profile: Profile, is_here: bool, wishes: Wishes, rows: Sequence[Measurement] = ()) -> Computer:
    """Return the computer for predictions. rows: of the store; they may tell the power that this computer draws."""
    return Computer(
        profile=profile,
        room=room_in(profile.facts, wishes.leave_free_bytes, is_here=is_here),
        is_here=is_here,
        correction=read_correction("decode_rate", profile) if is_here else None,
        prefill_correction=read_correction("prefill_rate", profile) if is_here else None,
        watts=measured_watts(rows, describe_machine()) if is_here and rows else None,
    )


def _with_measured_speeds(
    options: Sequence[Option], rows: Sequence[Measurement], evidence: Evidence, is_here: bool
) -> list[Option]:
    if not is_here or not evidence.fingerprint:
        return list(options)
    machine = describe_machine()
    return [measured_speeds(rows, option, evidence.fingerprint, machine) for option in options]


def _stored_rows() -> list[Measurement]:
    return read(store_path())[0] if store_path().is_file() else []


def _map_of(model: Model) -> Callable[[str], PredictedLoss | None] | None:
    """Return a function that gives the loss of a preset by the model's own map, or None for formats that the map lacks.
    Returns None if no map was made, or only a description of the model is here."""
    from thriftbit.quantization.model_map import read_map
    from thriftbit.quantization.sensitivity import CALIBRATED, PLAIN

    try:
        calibrated = read_map(model, CALIBRATED)
        known = calibrated or read_map(model, PLAIN)
    except ThriftbitError:
        return None
    if known is None:
        return None

    def predicted(preset: str) -> PredictedLoss | None:
        """Return the loss as the map predicts it: with calibration for presets that need importance data, else
        without."""
        formats = make_plan(model, preset, importance=PRESETS[preset].wants_importance).formats
        is_known = all(formats[tensor] in {"F32", *losses} for tensor, losses in known.losses.items())
        effort = CALIBRATED if PRESETS[preset].wants_importance and calibrated else PLAIN
        return known.predict(formats, effort) if is_known else None

    return predicted
