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

_LITTLE = 0.1  # the share of perplexity that may be lost for speed before speed is given up
_OF_USE = 0.3  # the share of perplexity beyond which nobody is advised to take a file for its speed
_TOO_SLOW = "slower than people read: a smaller model would suit this computer better"


@dataclass(frozen=True)
class Recommendation:
    """option: the recommended one; None if nothing fits or nothing meets the stated wishes. misses: sentences on the
    wishes that the option does not meet. better: the next option that loses less. cheaper: the next option that takes
    less. faster: an option in a faster place, or at least twice as fast. Each is None if there is none."""

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
    fast = [option for option in fitting if _is_fast(option, wishes.speed)]
    faithful = [option for option in fitting if is_faithful(option, wishes)]
    refused = _refused(fitting, fast, faithful, wishes)
    if refused:
        return Recommendation(None, (refused,), None, None)
    chosen = _chosen(fitting, faithful, wishes)
    misses = _misses(chosen, wishes)
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


def _is_fast(option: Option, speed: float) -> bool:
    """speed: tokens/s. Return whether it is fast enough, or nothing is known against it."""
    return option.speed.value is None or option.speed.value >= speed


def _refused(fitting: Sequence[Option], fast: Sequence[Option], faithful: Sequence[Option], wishes: Wishes) -> str:
    """Return why wishes that were expressed cannot be granted; "" if they can."""
    if wishes.min_speed is not None and not fast:
        quickest = max(fitting, key=lambda option: option.speed.value or 0.0)
        beside = f"; the fastest, {quickest.name}, about {quickest.speed.value:.2g}" if quickest.speed.value else ""
        return f"none writes {wishes.speed:g} tokens/s{beside}"
    if wishes.max_loss is not None and not faithful:
        return f"none of the precisions that fit loses {wishes.loss:.1%} or less"
    if wishes.min_speed is not None and wishes.max_loss is not None and not any(each in faithful for each in fast):
        return "none is both fast and faithful enough"
    return ""


def _chosen(fitting: Sequence[Option], faithful: Sequence[Option], wishes: Wishes) -> Option:
    """Return the smallest that is fast and faithful enough. Where none is both, wishes that were not expressed bend,
    the speed first: a slow answer is of more use than a bad one."""
    speeds = (wishes.speed,) if wishes.min_speed is not None else (wishes.speed, wishes.speed / 2, 0.0)
    for speed in speeds:
        fast = [option for option in fitting if _is_fast(option, speed)]
        if both := [option for option in fast if option in faithful]:
            return min(both, key=_work if wishes.saves_energy else _size)
        best = min(fast, key=_loss, default=None) if wishes.max_loss is None else None
        if best is not None and (speed == speeds[-1] or _loss(best) <= _LITTLE):
            return best
    return min(fitting, key=_loss)


def _misses(chosen: Option, wishes: Wishes) -> list[str]:
    """Return the wishes that were not expressed and are not met, in words."""
    misses = []
    if not _is_fast(chosen, wishes.speed):
        misses.append(f"that is less than {wishes.speed:g} tokens/s, {_TOO_SLOW}")
    if not is_faithful(chosen, wishes):
        words = f"it may lose more than {wishes.loss:.1%}"
        is_bad = _LITTLE < _loss(chosen) < float("inf")
        misses.append(f"{words}, so a smaller model with more bits may answer better" if is_bad else words)
    return misses


def _better(options: Sequence[Option], chosen: Option) -> Option | None:
    """Return the smallest of the options that lose clearly less than the chosen one."""
    less = [option for option in options if _loss(option) < 0.8 * _loss(chosen) and _size(option) > _size(chosen)]
    return min(less, key=_size, default=None)


def _cheaper(options: Sequence[Option], chosen: Option) -> Option | None:
    """Return the option that loses least among those that are clearly smaller than the chosen one."""
    smaller = [
        option
        for option in options
        if _size(option) < 0.95 * _size(chosen)
        and (option.loss.share.value is not None or chosen.loss.share.value is None)
    ]
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
