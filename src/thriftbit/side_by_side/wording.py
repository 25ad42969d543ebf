"""What votes add up to, in a sentence.

Guessing is right half of the time. Whoever's interval lies above that can tell the two apart; where it holds one half,
that may be because they cannot, or because they have hardly tried. The line between the two is three quarters, half way
from guessing to always, which is where psychology draws it when two are to choose from: only if the interval stays
below it, "no better than guessing" is said.
"""

from __future__ import annotations

from thriftbit.side_by_side.votes import CONFIDENCE, Tally

GUESSING, TELLING = 0.5, 0.75


def result(tally: Tally, original: str, other: str) -> str:
    """original, other: what the two are called. -> "You picked the original in 23 of 40 (…): …\""""
    if not tally.votes:
        return f"No votes on {original} and {other} yet."
    low, high = tally.interval
    share = tally.right / tally.votes
    counted = (
        f"You picked the original ({original}, not {other}) in {halves(tally.right)} of {tally.votes} "
        f"({100 * share:.0f} %, {100 * CONFIDENCE:.0f} % interval {100 * low:.0f}–{100 * high:.0f} %)"
    )
    if tally.cannot_tell:
        counted += (
            f", each of the {tally.cannot_tell} “can't tell” counted half"
            if tally.cannot_tell > 1
            else (", the one “can't tell” counted half")
        )
    return f"{counted}: {_verdict(low, high)}"


def halves(right: float) -> str:
    """-> "23", "23½", "½\""""
    whole, half = divmod(right, 1)
    return f"{whole:.0f}{'½' if half else ''}" if whole or not half else "½"


def _verdict(low: float, high: float) -> str:
    if low > GUESSING:
        return "you can tell them apart."
    if high < GUESSING:
        return "you can tell them apart, but take the other one for the original."
    if high < TELLING:
        return "that is no better than guessing."
    return "too few votes to tell."
