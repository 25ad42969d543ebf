"""What a file was measured to do, held against what was wished, and which file to try next.

A wish is met where even the worse end of the interval meets it: the lower quartile of the speed, the upper end of the
loss's 95% interval. It is missed where even the better end does not. Between the two it is open.

One measured file predicts the others of its model. Speeds are predicted by `fit`, and corrected by the factor that was
measured. Losses go with the squared error of the weights (`quantization/weight_error.py`), at the measured height. And
whatever was predicted: a file larger than one that is too slow is not tried, nor one that is smaller than one that
loses too much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from thriftbit.advice.options import Option
from thriftbit.advice.wishes import Wishes
from thriftbit.measurement.measurement import Measurement
from thriftbit.quantization.weight_error import predicted_losses

MET, MISSED, OPEN = "met", "missed", "open"
_SPEED_MARGIN, _LOSS_MARGIN = 1.05, 1.25  # by which predictions may be wrong; a file within them is tried first


@dataclass(frozen=True)
class Tried:
    """A file that was measured. speed: tokens/s that it writes. loss: its perplexity over the original's; None where it
    was not measured. was_known: whether it was measured before, and not now."""

    preset: str
    fingerprint: str
    size_bytes: int
    speed: Measurement
    loss: Measurement | None
    was_known: bool = False

    def share_lost(self) -> float | None:
        return None if self.loss is None or self.loss.value is None else self.loss.value - 1

    def of_speed(self, wishes: Wishes) -> str:
        if wishes.min_speed is None:
            return MET
        if self.speed.value is None:
            return MISSED  # it does not run here
        low, high = _ends(self.speed)
        return MET if low >= wishes.min_speed else MISSED if high < wishes.min_speed else OPEN

    def of_loss(self, wishes: Wishes) -> str:
        if wishes.max_loss is None:
            return MET
        if self.loss is None or self.loss.value is None:
            return OPEN
        low, high = _ends(self.loss)
        limit = 1 + wishes.max_loss
        return MET if high <= limit else MISSED if low > limit else OPEN

    def verdict(self, wishes: Wishes) -> str:
        both = {self.of_speed(wishes), self.of_loss(wishes)}
        return MISSED if MISSED in both else OPEN if OPEN in both else MET

    def margin(self, wishes: Wishes) -> float:
        """Return by which factor the wish that is met worst is exceeded; below 1 where it is not met."""
        return _margin(wishes, self.speed.value, self.share_lost())


def nearest(tried: Sequence[Tried], wishes: Wishes) -> Tried:
    """Return the file that meets the wishes, the smallest of several, or comes nearest to that."""
    met = [each for each in tried if each.verdict(wishes) == MET]
    if met:
        return min(met, key=lambda each: each.size_bytes)
    return max(tried, key=lambda each: (each.verdict(wishes) == OPEN, each.margin(wishes)))


def next_to_try(
    options: Sequence[Option],
    named: Option | None,
    tried: Sequence[Tried],
    wishes: Wishes,
    errors: Mapping[str, float],
) -> Option | None:
    """options: files that can be made. named: what the prediction names before anything was measured. errors: of the
    weights of every preset; empty before a loss was measured. Returns None where no other file would do better."""
    done = {each.preset for each in tried}
    left = [option for option in options if option.name not in done and not _is_hopeless(option, tried, wishes)]
    if not left:
        return None
    if not tried:
        return named or max(
            left, key=lambda option: _margin(wishes, option.speed.value, _expected_loss(option, (), {}))
        )
    of_name = {option.name: option for option in options}
    expected = [(_expected_speed(option, tried, of_name), _expected_loss(option, tried, errors)) for option in left]
    safe = [option for option, found in zip(left, expected, strict=True) if _is_safe(wishes, *found)]
    if safe:
        return min(safe, key=_size)
    margins = [_margin(wishes, *found) for found in expected]
    best = max(margins)
    return left[margins.index(best)] if best >= 1 else None


def _expected_speed(option: Option, tried: Sequence[Tried], of_name: Mapping[str, Option]) -> float | None:
    """Return tokens/s: as predicted, times what was measured over what was predicted of the files that ran. Where no
    speed was predicted, because this computer was not measured, speed goes with the inverse of what a token reads."""
    measured = [(each.speed.value, of_name[each.preset]) for each in tried if each.speed.value]
    predicted = option.speed.value
    if not measured:
        return predicted
    if predicted is None or any(own.speed.value is None for _, own in measured):
        return median(speed * _moved_bytes(own) for speed, own in measured) / _moved_bytes(option)
    return predicted * median(speed / (own.speed.value or speed) for speed, own in measured)


def _moved_bytes(option: Option) -> float:
    return sum(option.shape.bytes_per_token().values())


def _expected_loss(option: Option, tried: Sequence[Tried], errors: Mapping[str, float]) -> float | None:
    measured = {each.preset: lost for each in tried if (lost := each.share_lost()) is not None}
    if errors and (found := predicted_losses(errors, measured)):
        return found.get(option.name)
    share = option.loss.share
    return share.high if option.loss.is_of_others else share.value


def _is_hopeless(option: Option, tried: Sequence[Tried], wishes: Wishes) -> bool:
    return any(
        (each.of_speed(wishes) == MISSED and _size(option) >= each.size_bytes)
        or (each.of_loss(wishes) == MISSED and _size(option) <= each.size_bytes)
        for each in tried
    )


def _is_safe(wishes: Wishes, speed: float | None, lost: float | None) -> bool:
    fast = wishes.min_speed is None or (speed is not None and speed >= _SPEED_MARGIN * wishes.min_speed)
    return fast and (wishes.max_loss is None or (lost is not None and _LOSS_MARGIN * lost <= wishes.max_loss))


def _margin(wishes: Wishes, speed: float | None, lost: float | None) -> float:
    factors = []
    if wishes.min_speed is not None and speed is not None:
        factors.append(speed / wishes.min_speed)
    if wishes.max_loss is not None and lost is not None:
        factors.append(wishes.max_loss / lost if lost > 0 else math.inf)
    return min(factors, default=math.inf)


def _ends(row: Measurement) -> tuple[float, float]:
    assert row.value is not None
    return (row.value if row.low is None else row.low), (row.value if row.high is None else row.high)


def _size(option: Option) -> float:
    return option.size.value or 0.0
