"""Which of all precisions are worth choosing: at most eight, and none that another beats in everything.

Beaten is what another option undercuts: no larger, no slower, no more work for a token and no more lost, and better in
one of these. Of what is left, rows that do not fit say nothing but the first, and neighbours of nearly the same size
say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from thriftbit.advice.options import Option

MOST_ROWS = 8


def unbeaten(options: Sequence[Option]) -> list[Option]:
    """Return the options that no other option beats in everything, in the same order. The format that the model was
    made in is always among them."""
    marks = [_marks(option) for option in options]
    return [
        option
        for option, own in zip(options, marks, strict=True)
        if option.native or not any(_beats(other, own) for other in marks)
    ]


def worth_choosing(options: Sequence[Option], wanted: Iterable[Option | None]) -> list[Option]:
    """wanted: that have to be among them. Returns at most MOST_ROWS, the largest first."""
    kept = {id(option) for option in wanted if option is not None} | {id(each) for each in options if each.native}
    shown = kept | {id(option) for option in unbeaten(options)}
    rows = [option for option in options if id(option) in shown]
    if any(option.fits for option in rows):
        too_large = [id(option) for option in rows if not option.fits and id(option) not in kept]
        rows = [option for option in rows if id(option) not in too_large[:-1]]  # the smallest shows where it ends
    rows.sort(key=lambda option: -_size(option))
    while len(rows) > MOST_ROWS:
        places = [place for place in range(1, len(rows) - 1) if id(rows[place]) not in kept]
        if not places:
            break
        del rows[min(places, key=lambda place: _size(rows[place - 1]) / _size(rows[place + 1]))]
    return rows


def _beats(one: Sequence[float | None], other: Sequence[float | None]) -> bool:
    """Return whether one is no worse in anything that is known of both, and better in something."""
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _marks(option: Option) -> tuple[float | None, ...]:
    """Return what options are compared by, the less the better; None where it is not known."""
    lost = option.loss.share.value
    slowness = -option.speed.value if option.speed.value else None
    return float(not option.fits), _size(option), _work(option), float("inf") if lost is None else lost, slowness


def _size(option: Option) -> float:
    return option.size.value or 1.0


def _work(option: Option) -> float:
    """Return bytes that are read for a token."""
    return sum(option.shape.bytes_per_token().values())
