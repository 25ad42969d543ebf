"""The precisions that are worth choosing: at most eight, and none that another one dominates.

An option dominates another if it is no larger, no slower, takes no more work per token and loses no more, and is better
in one of these. Of the remaining options that do not fit, only the smallest is shown. Of neighbours with nearly the
same size, one is shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from thriftbit.advice.options import Option

MOST_ROWS = 8


def unbeaten(options: Sequence[Option]) -> list[Option]:
    """Return the options that no other option dominates, in the same order. The format that the model was made in is
    always among them."""
    marks = [_marks(option) for option in options]
    return [
        option
        for option, own in zip(options, marks, strict=True)
        if option.native or not any(_beats(other, own) for other in marks)
    ]


def worth_choosing(options: Sequence[Option], wanted: Iterable[Option | None]) -> list[Option]:
    """Return at most MOST_ROWS options, the largest first. wanted: options that have to be among them."""
    kept = {id(option) for option in wanted if option is not None} | {id(each) for each in options if each.native}
    shown = kept | {id(option) for option in unbeaten(options)}
    rows = [option for option in options if id(option) in shown]
    if any(option.fits for option in rows):
        too_large = [id(option) for option in rows if not option.fits and id(option) not in kept]
        rows = [option for option in rows if id(option) not in too_large[:-1]]  # the smallest of them is shown
    rows.sort(key=lambda option: -_size(option))
    while len(rows) > MOST_ROWS:
        places = [place for place in range(1, len(rows) - 1) if id(rows[place]) not in kept]
        if not places:
            break
        del rows[min(places, key=lambda place: _size(rows[place - 1]) / _size(rows[place + 1]))]
    return rows


def _beats(one: Sequence[float | None], other: Sequence[float | None]) -> bool:
    """Return whether one is no worse in any mark that is known of both, and better in one."""
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _marks(option: Option) -> tuple[float | None, ...]:
    """Return the marks by which options are compared. Less is better; None is unknown."""
    lost = option.loss.share.value
    slowness = -option.speed.value if option.speed.value else None
    return float(not option.fits), _size(option), _work(option), float("inf") if lost is None else lost, slowness


def _size(option: Option) -> float:
    return option.size.value or 1.0


def _work(option: Option) -> float:
    """Return the bytes that are read to write a token."""
    return sum(option.shape.bytes_per_token().values())
