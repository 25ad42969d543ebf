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
    """-> in the same order; what the model was made in is always among them"""
    return [option for option in options if option.native or not any(_beats(other, option) for other in options)]


def worth_choosing(options: Sequence[Option], wanted: Iterable[Option | None]) -> list[Option]:
    """wanted: that have to be among them. -> at most MOST_ROWS, the largest first"""
    kept = {id(option) for option in wanted if option is not None} | {id(each) for each in options if each.native}
    rows = [option for option in options if id(option) in kept or option in unbeaten(options)]
    if any(option.fits for option in rows):
        too_large = [option for option in rows if not option.fits and id(option) not in kept]
        rows = [option for option in rows if option not in too_large[:-1]]  # the smallest of them shows where it ends
    rows.sort(key=lambda option: -_size(option))
    while len(rows) > MOST_ROWS:
        places = [place for place in range(1, len(rows) - 1) if id(rows[place]) not in kept]
        if not places:
            break
        del rows[min(places, key=lambda place: _size(rows[place - 1]) / _size(rows[place + 1]))]
    return rows


def _beats(one: Option, other: Option) -> bool:
    """-> whether one is no worse in anything, and better in something"""
    if one is other or (other.fits and not one.fits):
        return False
    pairs = [(_size(one), _size(other)), (_work(one), _work(other)), (_lost(one), _lost(other))]
    if one.speed.value and other.speed.value:
        pairs.append((-one.speed.value, -other.speed.value))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _size(option: Option) -> float:
    return option.size.value or 1.0


def _work(option: Option) -> float:
    """-> bytes that are read for a token"""
    return sum(option.shape.bytes_per_token().values())


def _lost(option: Option) -> float:
    return float("inf") if option.loss.share.value is None else option.loss.share.value
