"""Every precision of a model on a computer: its size, memory, speed and loss."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

from thriftbit.advice.losses import (
    LOSSLESS,
    MEASURED,
    ROUNDED_TO_16_BITS,
    UNKNOWN,
    Evidence,
    ExpectedLoss,
    expected_loss,
    loss_of_file,
    with_cache,
)
from thriftbit.advice.plans import Running, best_plan
from thriftbit.advice.wishes import Wishes
from thriftbit.errors import ThriftbitError
from thriftbit.formats import FORMATS
from thriftbit.machine.corrections import Correction
from thriftbit.machine.memory_needed import MemoryNeeded
from thriftbit.machine.model_shape import ModelShape, shape_of
from thriftbit.machine.placement import Placement
from thriftbit.machine.predict import decode_rate, energy_per_token, first_token_seconds, prefill_rate
from thriftbit.machine.prediction import Prediction, exact, unknown
from thriftbit.machine.profile import Profile, Spread
from thriftbit.machine.room import Room
from thriftbit.machine.running_plan import RunningPlan
from thriftbit.measurement.measurement import Measurement
from thriftbit.quantization.gguf_file import file_layout
from thriftbit.quantization.plan import CUSTOM, Plan, make_plan
from thriftbit.quantization.presets import PRESETS, is_quantizable
from thriftbit.quantization.same import same_plan
from thriftbit.sizes import counted
from thriftbit.sources.born_small import BITNET, MXFP4, NVFP4
from thriftbit.sources.model import Model
from thriftbit.sources.remote import Outline
from thriftbit.sources.tensor import Tensor

_PROMPT_TOKENS = 512
_OF_A_TOKENIZER = (10, 40, 80)  # bytes per entry of the vocabulary: least, usual and most in families with a table
_CPU = "CPU"
AS_IT_IS = "as it is"
_KINDS_OF = {"TQ1_0": BITNET, "TQ2_0": BITNET, "MXFP4_MOE": MXFP4, "NVFP4": NVFP4, "Q1_0": "Q1_0", "Q2_0": "Q2_0"}


@dataclass(frozen=True)
class Option:
    """name: the preset, or the format of a model that is quantized already. size: bytes of the file. plan: how it would
    run. memory, place: what that needs, and where. speed: tokens/s when writing. prefill: tokens/s when reading.
    first_token: seconds until an answer to 512 tokens begins. energy: joules per token. speed_provenance: "measured
    here", "predicted", "unknown". loss: of weights and cache together. cache_loss: of the cache alone. native: whether
    it is the format that the model was made in. same: other presets that give the same file, tensor for tensor."""

    name: str
    size: Prediction
    bits_per_weight: float
    shape: ModelShape
    plan: RunningPlan
    memory: MemoryNeeded
    place: Placement
    speed: Prediction
    speed_provenance: str
    prefill: Prediction
    first_token: Prediction
    loss: ExpectedLoss
    cache_loss: Prediction
    energy: Prediction
    native: bool = False
    same: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        return self.place.fits


@dataclass(frozen=True)
class Computer:
    """profile: None if nothing is known of the computer; it may lack measurements. room: for models. is_here: whether
    it is this computer. watts: the power while models wrote, if a counter measured it."""

    profile: Profile | None
    room: Room
    is_here: bool
    correction: Correction | None = None
    prefill_correction: Correction | None = None
    watts: Spread | None = None

    @property
    def instruction_sets(self) -> Sequence[str]:
        return (self.profile.facts.processor.instruction_sets.value or ()) if self.profile else ()


@dataclass(frozen=True)
class Level:
    """One precision of a model, on any computer. name: as in Option. formats: of its tensors, in order."""

    name: str
    formats: tuple[str, ...]
    shape: ModelShape
    size: Prediction
    native: bool


def levels_of(outline: Outline, *, as_it_is: bool = False) -> list[Level]:
    """as_it_is: only a file's own. Return every precision."""
    model = outline.model
    plans = [own_formats(outline)] if as_it_is else _plans(outline)
    return [
        Level(
            name,
            tuple(plan.formats.values()),
            shape_of(model.architecture, model.metadata, plan.entries(model)),
            _file_size(outline, plan),
            plan.preset == CUSTOM,
        )
        for name, plan in plans
    ]


def all_options(
    outline: Outline, computer: Computer, wishes: Wishes, evidence: Evidence, levels: Iterable[Level]
) -> list[Option]:
    """levels: of `levels_of`. Return from 32-bit floats down; with what a model is small in already, if it is."""
    alike: dict[tuple[str, ...], list[Option]] = {}
    for level in levels:
        option = _option(outline, level, computer, wishes, evidence)
        alike.setdefault(level.formats, []).append(option)
    return sorted(map(_merged, alike.values()), key=lambda option: -option.bits_per_weight)


def _merged(options: Sequence[Option]) -> Option:
    """Return one option for several that give the same file, tensor for tensor: the one with the least known loss."""
    if len(options) == 1:
        return options[0]
    first = min(options, key=lambda option: (not option.native, option.loss.share.value or 0.0))
    return replace(first, same=tuple(option.name for option in options if option is not first))


def measured_speeds(rows: Sequence[Measurement], option: Option, fingerprint: str, machine: object) -> Option:
    """Return the option with the measured speed of such a file on this computer, if there is one. rows: of the
    store."""
    here = [
        row
        for row in rows
        if row.what == "decode_rate"
        and row.value is not None
        and row.provenance == MEASURED
        and row.subject.level == option.name
        and row.against is not None
        and row.against.fingerprint == fingerprint
        and row.machine == machine
    ]
    if not here:
        return option
    row = max(here, key=lambda row: row.time)
    value = row.value or 0.0
    low, high = (value if end is None else end for end in (row.low, row.high))
    reason = f"measured with {counted(int(row.settings.get('threads') or 1), 'thread')}, {row.time[:10]}"
    return replace(option, speed=Prediction(value, low, high, reason), speed_provenance=MEASURED)


def measured_watts(rows: Iterable[Measurement], machine: object) -> Spread | None:
    """Return this computer's power in watts while models write: energy per token divided by time per token, over all
    files with both."""
    found: dict[tuple[str, object], dict[str, float]] = {}
    for row in rows:
        if row.what in ("energy_per_token", "decode_rate") and row.value is not None and row.machine == machine:
            key = row.subject.fingerprint, row.settings.get("threads")
            found.setdefault(key, {})[row.what] = row.value
    watts = sorted(each["energy_per_token"] * each["decode_rate"] for each in found.values() if len(each) == 2)
    return Spread(median(watts), watts[0], watts[-1]) if watts else None


def _plans(outline: Outline) -> Iterator[tuple[str, Plan]]:
    """Yield the name and the plan of every precision that suits the model. Of levels with the same name, the first is
    taken."""
    model = outline.model
    native = native_formats(outline)
    if native:
        yield native
    if model.quantized_source:
        return
    for preset in PRESETS:
        if _is_for(preset, outline) and not (native and native[0] == preset):
            yield preset, make_plan(model, preset, importance=PRESETS[preset].wants_importance)


def _is_for(preset: str, outline: Outline) -> bool:
    """Return whether the preset suits the model. One-bit and ternary presets destroy a model that was not trained for
    them. MXFP4_MOE and NVFP4 are for weights that were trained in these formats."""
    kind = outline.born.kind if outline.born else ""
    return kind == _KINDS_OF.get(preset, kind)


def native_formats(outline: Outline) -> tuple[str, Plan] | None:
    """Return the name and plan of the format that the model is stored in or was trained for. Returns None for a model
    in full precision, and if llama.cpp lacks the format."""
    model, born = outline.model, outline.born
    if model.quantized_source:
        return own_formats(outline)
    if any(tensor.is_packed for tensor in model.tensors):
        return _unchanged(model)
    if born is None or born.format not in FORMATS or not born.trained:
        return None
    has_experts = any("_exps." in tensor.name for tensor in model.tensors)

    def format_of(tensor: Tensor) -> str:
        if not is_quantizable(tensor):
            return "F32"
        return tensor.source_dtype if has_experts and "_exps." not in tensor.name else born.format

    formats = {tensor.name: format_of(tensor) for tensor in model.tensors}
    return born.format, Plan(formats, CUSTOM, f"made in {born.kind}")


def _unchanged(model: Model) -> tuple[str, Plan] | None:
    """Return the plan that keeps the weights as they are packed; None if GGUF lacks a format for one of them."""
    try:
        plan = same_plan(model)
    except ThriftbitError:
        return None
    return plan.most_common_format(model), plan


def own_formats(outline: Outline) -> tuple[str, Plan]:
    """Return the name and plan of a file as it is."""
    model = outline.model
    plan = Plan({tensor.name: tensor.source_dtype for tensor in model.tensors}, CUSTOM, AS_IT_IS)
    return outline.level or plan.most_common_format(model), plan


def _option(outline: Outline, level: Level, computer: Computer, wishes: Wishes, evidence: Evidence) -> Option:
    name, shape, native = level.name, level.shape, level.native
    context = wishes.context(shape.context_tokens)
    running = best_plan(
        shape,
        outline.model.architecture,
        context,
        computer.room,
        computer.instruction_sets,
        wishes.running,
        is_asked_for=wishes.context_tokens is not None,
    )
    speed, prefill = _speeds(shape, computer, running)
    loss = with_cache(_loss(outline, name, evidence, native), running.cache_loss)
    return Option(
        name=name,
        size=level.size,
        bits_per_weight=8 * shape.weights_bytes / shape.parameters,
        shape=shape,
        plan=running.plan,
        memory=running.memory,
        place=running.place,
        speed=speed,
        speed_provenance="unknown" if speed.value is None else "predicted",
        prefill=prefill,
        first_token=first_token_seconds(prefill, speed, _PROMPT_TOKENS),
        loss=loss,
        cache_loss=running.cache_loss,
        energy=energy_per_token(speed, computer.watts),
        native=native,
    )


def _loss(outline: Outline, name: str, evidence: Evidence, native: bool) -> ExpectedLoss:
    if native and outline.model.quantized_source and outline.born is None:
        return loss_of_file(outline.model, name, evidence)
    if native:
        return ExpectedLoss(exact(0.0, "the model as it was made"), LOSSLESS)
    loss = expected_loss(outline.model, name, evidence)
    if outline.born is not None and outline.born.packed and name in ("F16", "BF16"):
        return ROUNDED_TO_16_BITS
    if outline.born is None or not (outline.born.trained and outline.born.format):
        return loss  # against the model as it is, without what it lost before
    if loss.provenance in (LOSSLESS, MEASURED):
        return loss
    return ExpectedLoss(
        unknown(f"it adds to the loss of {outline.born.kind}, and no number is published for that"), UNKNOWN
    )


def _speeds(shape: ModelShape, computer: Computer, running: Running) -> tuple[Prediction, Prediction]:
    """Return how fast it writes and reads."""
    profile, where = computer.profile, running.place
    if not where.fits:
        return unknown("it does not fit"), unknown("it does not fit")
    decode = decode_rate(shape, profile, plan=running.plan, place=where, correction=computer.correction)
    measured_on_gpu = profile is not None and profile.device not in ("", _CPU)
    if profile is not None and profile.rates and where.where != ("GPU" if measured_on_gpu else _CPU):
        on = "the GPU" if measured_on_gpu else "the processor"
        return decode, unknown(f"the speed of {on} was measured, and this would run {_words(where)}")
    return decode, prefill_rate(shape, profile, prompt_tokens=_PROMPT_TOKENS, correction=computer.prefill_correction)


def _words(where: Placement) -> str:
    return "on the processor" if where.where == _CPU else "on the GPU" if where.where == "GPU" else "partly on the GPU"


def _file_size(outline: Outline, plan: Plan) -> Prediction:
    model = outline.model
    if plan.provenance == AS_IT_IS and outline.file_bytes:
        return exact(outline.file_bytes, "the file as it is")
    size_bytes = file_layout(model, plan).file_size_bytes
    if outline.tokenizer_known:
        return exact(size_bytes, "every tensor and all metadata, to the byte")
    tokens = next((tensor.rows for tensor in model.tensors if tensor.name == "token_embd.weight"), 0)
    low, middle, high = (size_bytes + tokens * each for each in _OF_A_TOKENIZER)
    return Prediction(middle, low, high, "tensors to the byte; the tokenizer is not here and was estimated")
