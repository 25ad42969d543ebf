"""Advice in sentences for people who have never heard of Q4_K_M."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from thriftbit.advice.losses import FAMILY, LITERATURE, LOSSLESS, PREDICTED, ExpectedLoss
from thriftbit.advice.options import Option
from thriftbit.machine.prediction import Prediction
from thriftbit.quantization.presets import PRESETS
from thriftbit.sizes import describe_bytes
from thriftbit.strangers import quoted

if TYPE_CHECKING:  # an Advice describes itself in notebooks with these sentences
    from thriftbit.advice.fit import Advice

_BESIDE = {
    LITERATURE: "as published for other models",
    FAMILY: "as measured on its family",
    PREDICTED: "as its own map predicts",
}
_SMALL = 0.0005
_MEANING = ((0.002, "no difference you could notice"), (0.012, "hardly any difference in its answers"),
            (0.04, "a difference that is hard to notice"), (0.10, "a difference that shows now and then"),
            (0.30, "clearly worse answers"))  # fmt: skip
_WORST = "badly damaged answers"
_EFFECTS = ((0.002, "none"), (0.012, "hardly any"), (0.04, "hard to notice"), (0.10, "now and then"),
            (0.30, "clearly worse"))  # fmt: skip
_LEAST_SHOWN, _MOST_SHOWN = 0.001, 10.0  # shares, beyond which the number says no more


def reason(advice: Advice) -> str:
    """Return one sentence on why the precision is recommended, or why there is no recommendation."""
    option = advice.choice.option
    if option is None:
        return _refusal(advice)
    if option.native:
        return _native_reason(advice, option)
    takes = f"It takes {share_of_original(advice, option)}{describe_bytes(_value(option.size))}, {_fits(option)}"
    speed = _speed(option)
    loss = option.loss.share
    if loss.value is None:
        return f"{takes}{speed}; its loss is not known."
    meaning = meaning_of(_told(option.loss))
    return f"{takes}{speed}, and you can expect {meaning} ({describe_loss(option.loss)}{_beside(option.loss)})."


def difference(advice: Advice, other: Option, *, better: bool) -> str:
    """Return a sentence on what the next better or the next cheaper precision would change."""
    chosen = advice.choice.option
    assert chosen is not None
    memory, own = other.memory.lasting.value, chosen.memory.lasting.value
    more = describe_bytes(abs(_value(other.size) - _value(chosen.size)))
    facts = [f"{'takes' if better else 'saves'} {more}{' more' if better else ''}"]
    if other.speed.value and chosen.speed.value and other.fits:
        theirs, ours = describe_number(other.speed.value), describe_number(chosen.speed.value)
        facts.append("is as fast" if theirs == ours else f"writes {theirs} tokens/s instead of {ours}")
    if other.loss.share.value is not None and chosen.loss.share.value is not None:
        facts.append(f"loses {_lost(other.loss)} instead of {_lost(chosen.loss)}")
    if other.fits and (other.place.where, other.plan.is_cache_usual) != (
        chosen.place.where,
        chosen.plan.is_cache_usual,
    ):
        facts.append(f"runs {_where(other)}{_cache(other)}")
    if memory and own and not other.fits:
        facts.append(f"does not fit: {describe_bytes(round(memory))} of memory")
    return f"{other.name} {_joined(facts)}."


def next_command(advice: Advice) -> str:
    """Return the command to type next; "" if there is none."""
    option, outline = advice.choice.option, advice.outline
    if option is None:
        return ""
    source = outline.model.source
    if option.native:
        if Path(source).is_file():
            return f"thriftbit chat {quoted(source)} {option.plan.options()}"
        if outline.weights_there and not outline.obstacle:
            return f"thriftbit quantize {quoted(source)} --to same"
    if option.native or not outline.weights_there:
        return f"thriftbit find {quoted(f'{Path(source).name} {option.name}')}"
    if outline.obstacle:
        return ""
    needs = option.name in PRESETS and PRESETS[option.name].wants_importance
    return f"thriftbit quantize {quoted(source)} --to {option.name}{' --effort calibrated' if needs else ''}"


def running_command(advice: Advice) -> str:
    """Return what to type to run the recommended precision as it was planned, once its file is here; "" where that is
    known already, or nothing is recommended."""
    option, source = advice.choice.option, Path(advice.outline.model.source)
    if option is None or not next_command(advice).startswith("thriftbit quantize"):
        return ""
    name = source.resolve().name.partition("@")[0]
    return f"thriftbit chat {quoted(f'{name}-{option.name}.gguf')} {option.plan.options()}"


def describe_loss(loss: ExpectedLoss) -> str:
    """Return the loss in words: "0.4–2.9%", "under 0.1%", "none", "none to speak of" or "unknown"."""
    share = loss.share
    if share.value is None:
        return "unknown"
    if loss.provenance == LOSSLESS:
        return "none" if share.is_exact else "none to speak of"
    low, high = max(0.0, share.low or 0.0), max(0.0, share.high or share.value)
    if high < _LEAST_SHOWN:
        return f"under {describe_percent(_LEAST_SHOWN)}"
    if low >= _MOST_SHOWN:
        return f"over {describe_percent(_MOST_SHOWN)}"
    ends = describe_percent(low).removesuffix("%") if low >= _LEAST_SHOWN / 10 else "0"
    if high >= _MOST_SHOWN:
        return f"{ends}–{describe_percent(_MOST_SHOWN)} and more"
    upper = describe_percent(high)
    return upper if upper.removesuffix("%") == ends else f"{ends}–{upper}"


def describe_effect(loss: ExpectedLoss) -> str:
    """Return what a reader may notice, from the best to the worst end of the range: "hardly any to hard to notice"."""
    share = loss.share
    if share.value is None:
        return ""
    ends = [_effect(max(0.0, end)) for end in (share.low or 0.0, share.high or share.value)]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def _effect(share: float) -> str:
    return next((words for limit, words in _EFFECTS if share < limit), "badly damaged")


def describe_percent(share: float) -> str:
    """Return the percentage with two digits, because losses span four orders of magnitude."""
    percent = 100 * share
    if abs(percent) >= 9.95:
        return f"{percent:.0f}%"
    return f"{percent:.1f}%" if abs(percent) >= 0.095 else f"{percent:.2f}%"


def describe_number(value: float) -> str:
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"


def meaning_of(share: float) -> str:
    """Return the meaning of a rise of perplexity for a reader, by a convention (see report/verdict.py)."""
    return next((words for limit, words in _MEANING if share < limit), _WORST)


def share_of_original(advice: Advice, option: Option) -> str:
    original = advice.outline.model.size_bytes
    share = _value(option.size) / original if original else 1.0
    return f"{share:.0%} of the original's space, " if share < 0.95 else ""


def _native_reason(advice: Advice, option: Option) -> str:
    born = advice.outline.born
    size = describe_bytes(_value(option.size))
    if born is not None and born.trained:
        return (
            f"This model was made in {born.kind} and is already as small as it was meant to be. It takes {size}, "
            f"{_fits(option)}{_speed(option)}, and loses {_lost(option.loss)}."
        )
    lost = ""
    if option.loss.share.value is not None:
        beside = f"{describe_loss(option.loss)}{_beside(option.loss)}"
        lost = f"; expect {meaning_of(_told(option.loss))} ({beside})"
    return f"The file takes {size} and {_fits(option)}{_speed(option)}{lost}."


def _refusal(advice: Advice) -> str:
    misses = advice.choice.misses
    if misses:
        return f"No precision meets all your wishes: {', '.join(misses)}."
    if any(option.place.where == "unknown" for option in advice.options):
        memory = advice.options[0].memory
        known = memory.lasting.reason if memory.cache is None else "this computer's memory is not known"
        return f"It is not known whether the model fits: {known}."
    which = "is free now" if advice.is_here else "its system leaves"
    return f"No precision fits into the {describe_bytes(advice.room.main or 0)} of memory that {which}."


def _fits(option: Option) -> str:
    """Return "fits into memory", with what there is to say of its cache"""
    where = "into memory" if option.place.where == "CPU" else _where(option)
    return f"fits {where}{_cache(option)}"


def _where(option: Option) -> str:
    place = option.place
    if place.where == "partly":
        return f"with {place.gpu_layers} of {place.layers + 1} layers on the GPU"
    if place.where == "experts":
        return f"on the GPU with the experts of {place.expert_layers} of {place.layers} layers in main memory"
    return {"GPU": "on the GPU", "CPU": "on the processor"}.get(place.where, "nowhere")


def _cache(option: Option) -> str:
    plan = option.plan
    if plan.is_cache_usual:
        return ""
    kept = plan.key_type if plan.key_type == plan.value_type else f"{plan.key_type} and {plan.value_type}"
    return f" with its context kept in {kept}"


def _speed(option: Option) -> str:
    if option.speed.value is None:
        return ""
    about = "" if option.speed_provenance == "measured here" else "about "
    return f", writes {about}{describe_number(option.speed.value)} tokens/s"


def _beside(loss: ExpectedLoss) -> str:
    words = _BESIDE.get(loss.provenance, "")
    return f" in perplexity, {words}" if words else " in perplexity" if loss.provenance != LOSSLESS else ""


def _told(loss: ExpectedLoss) -> float:
    """Return the share that a sentence is about: the worse end of a range."""
    return (loss.share.high if loss.is_of_others else loss.share.value) or 0.0


def _lost(loss: ExpectedLoss) -> str:
    return "nothing" if loss.provenance == LOSSLESS else describe_loss(loss)


def _joined(facts: list[str]) -> str:
    return facts[0] if len(facts) == 1 else f"{', '.join(facts[:-1])} and {facts[-1]}"


def _value(prediction: Prediction) -> int:
    return round(prediction.value or 0.0)
