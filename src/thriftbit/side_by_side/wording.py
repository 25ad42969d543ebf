"""What votes add up to, in a sentence.

A guess is right half of the time. If the interval lies above one half, the person can tell the two apart. If it
contains one half, they may be unable to, or may have hardly tried. The line between these two is three quarters, half
way from guessing to always being right, which is where psychology draws it for a choice of two. Only an interval that
stays below three quarters gets the verdict "no better than guessing".
"""

from __future__ import annotations

from thriftbit.side_by_side.votes import CONFIDENCE, Tally

GUESSING, TELLING = 0.5, 0.75


def result(tally: Tally, original: str, other: str) -> str:
    """original, other: what the two are called. -> "You picked the original in 23 of 40 (…): …"."""
    if not tally.votes:
        return f"No votes on {original} and {other} yet."
    low, high = tally.interval
    share = tally.right / tally.votes
    counted = (
        f"You picked the original ({original}, not {other}) in {halves(tally.right)} of {tally.votes} "
        f"({100 * share:.0f}%, {100 * CONFIDENCE:.0f}% interval {100 * low:.0f}–{100 * high:.0f}%)"
    )
    if tally.cannot_tell:
        counted += (
            f", each of the {tally.cannot_tell} “can't tell” counted half"
            if tally.cannot_tell > 1
            else (", the one “can't tell” counted half")
        )
    return f"{counted}: {_verdict(low, high)}"


def halves(right: float) -> str:
    """Return "23", "23½", "½"."""
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
