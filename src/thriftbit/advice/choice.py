"""Recommends one precision, with the reason, and says what the next better and the next cheaper one would change.

A person can check the rule: of the precisions that fit, are fast enough and lose no more than is accepted, the smallest
is recommended. The smallest, because fewer bytes mean more speed, less memory and less energy. On battery, the one with
the least energy per token is recommended, which is usually the same. If none is within the accepted loss, the one with
the least loss is recommended, and the user is told. Defaults (the speed of reading, the usual loss) are relaxed if
nothing meets them. Wishes that the user stated are not relaxed: then the verdict is no."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from thriftbit.advice.options import Option
from thriftbit.advice.wishes import READING_SPEED, Wishes
from thriftbit.advice.worthwhile import unbeaten

_OF_USE = 0.3  # the share of perplexity beyond which nobody is advised to take a file for its speed
_TOO_SLOW = "slower than people read: a smaller model would suit this computer better"


@dataclass(frozen=True)
class Recommendation:
    """option: recommended; None where nothing fits, or no wish can be granted. misses: wishes that even this one does
    not meet, in words. better: the next that loses less; cheaper: the next that takes less; faster: one that runs in a
    faster place, and is still of use; each None where there is none."""

    option: Option | None
    misses: tuple[str, ...]
    better: Option | None
    cheaper: Option | None
    faster: Option | None = None


def choose(options: Sequence[Option], wishes: Wishes) -> Recommendation:
    options = unbeaten(options)
    native = [option for option in options if option.native]
    fitting = [option for option in native or options if option.fits]
    if not fitting:
        return Recommendation(None, (), None, None)
    fast = [option for option in fitting if _is_fast(option, wishes)]
    faithful = [option for option in fitting if is_faithful(option, wishes)]
    both = [option for option in fast if option in faithful]
    misses: list[str] = []
    if both:
        chosen = min(both, key=_work if wishes.saves_energy else _size)
    elif wishes.min_speed is not None and not fast:
        quickest = max(fitting, key=lambda option: option.speed.value or 0.0)
        beside = f"; the fastest, {quickest.name}, about {quickest.speed.value:.2g}" if quickest.speed.value else ""
        return Recommendation(None, (f"none writes {wishes.speed:g} tokens/s{beside}",), None, None)
    elif wishes.max_loss is not None and not faithful:
        return Recommendation(None, (f"none of the precisions that fit loses {wishes.loss:.1%} or less",), None, None)
    elif wishes.min_speed is not None and wishes.max_loss is not None:
        return Recommendation(None, ("none is both fast and faithful enough",), None, None)
    elif faithful and (wishes.max_loss is not None or not fast):
        chosen = min(faithful, key=_size)
        misses.append(f"that is less than {wishes.speed:g} tokens/s, {_TOO_SLOW}")
    else:
        chosen = min(fast or fitting, key=_loss)
        misses.append(f"it may lose more than {wishes.loss:.1%}")
    if wishes.min_speed is not None and chosen.speed.value is None:
        misses.append(f"whether it writes {wishes.speed:g} tokens/s is not known ({chosen.speed.reason})")
    cheaper = _cheaper(options, chosen)
    faster = _faster(options, chosen)
    return Recommendation(
        chosen, tuple(misses), _better(options, chosen), cheaper, faster if faster is not cheaper else None
    )


def is_faithful(option: Option, wishes: Wishes) -> bool:
    """Return whether the loss is accepted. For a sensitive task, and if only a range is known, the pessimistic end of
    the loss has to be."""
    share = option.loss.share
    worst = share.high if wishes.is_sensitive or option.loss.is_of_others else share.value
    return worst is not None and worst <= wishes.loss


def _is_fast(option: Option, wishes: Wishes) -> bool:
    """Return whether the option is fast enough. An unknown speed counts as fast enough."""
    return option.speed.value is None or option.speed.value >= wishes.speed


def _better(options: Sequence[Option], chosen: Option) -> Option | None:
    """Return the smallest of the options that lose clearly less than the chosen one."""
    less = [option for option in options if _loss(option) < 0.8 * _loss(chosen) and _size(option) > _size(chosen)]
    return min(less, key=_size, default=None)


def _cheaper(options: Sequence[Option], chosen: Option) -> Option | None:
    """Return the option that loses least among those that are clearly smaller than the chosen one."""
    smaller = [option for option in options if _size(option) < 0.95 * _size(chosen)]
    return _first(smaller, key=lambda option: (_loss(option), _size(option)))


def _faster(options: Sequence[Option], chosen: Option) -> Option | None:
    """Return the one that loses least of those that the GPU takes whole, or that are at least twice as fast, where the
    chosen one is slower than people read."""
    if chosen.place.where == "GPU" or (chosen.speed.value or 0.0) >= READING_SPEED:
        return None
    twice = 2 * (chosen.speed.value or float("inf"))
    quick = [
        option
        for option in options
        if option.fits and (option.place.where == "GPU" or (option.speed.value or 0.0) >= twice)
    ]
    return _first([each for each in quick if _loss(each) <= _OF_USE], key=lambda option: (_loss(option), _size(option)))


def _first(options: Sequence[Option], key: Callable[[Option], tuple[float, float]]) -> Option | None:
    return min(options, key=key, default=None)


def _work(option: Option) -> float:
    """Return the energy of a token: in joules if they are known, else as the bytes that are read for it."""
    moved = sum(option.shape.bytes_per_token().values())
    return moved if option.energy.value is None else option.energy.value


def _size(option: Option) -> float:
    return option.size.value or 0.0


def _loss(option: Option) -> float:
    return float("inf") if option.loss.share.value is None else option.loss.share.value
