"""What the journal of a model's map holds: the keys, what counts as sound, and the sensitivities read from it."""

from __future__ import annotations

from typing import Any

from thriftbit.errors import ThriftbitError
from thriftbit.machine.records import from_document
from thriftbit.quantization.journal import Journal
from thriftbit.quantization.sensitivity import Anchor, Sensitivities
from thriftbit.sources.model import Model

# What keys of the journal begin with. Of a matrix: its losses, and what rounding saves; of a format that was tried: how
# the saving of others differs; losses that were measured: {tensor: {format: loss}}; a whole plan: an anchor.
LOSSES, SAVING, BY_FORMAT, MEASURED, PLAN, FINISHED = (
    "losses ",
    "saving ",
    "tried in ",
    "measured ",
    "plan ",
    "finished ",
)
LEAST_LOSS, MOST_LOSS = 1e-12, 1e6  # nats per token of a whole plan
MOST_SPREAD = 10.0  # of a logarithm


def sensitivities_in(journal: Journal, model: Model) -> Sensitivities:
    """Return the sensitivities, as far as they are known."""
    losses: dict[str, dict[str, float]] = dict(journal.under(LOSSES))
    for measured in journal.under(MEASURED).values():
        for tensor, added in measured.items():  # a tied embedding was measured at both of its places
            before = losses.get(tensor, {})
            losses[tensor] = {name: loss + before.get(name, 0.0) for name, loss in added.items()}
    return Sensitivities(
        model.fingerprint,
        losses,
        journal.under(SAVING),
        journal.under(BY_FORMAT),
        tuple(from_document(Anchor, anchor) for anchor in journal.under(PLAN).values()),
    )


def is_sound(key: str, value: Any) -> bool:
    """Return whether the value under this key of the journal has the shape and the numbers that were written."""
    if key.startswith(PLAN):
        try:
            anchor = from_document(Anchor, value)
        except ThriftbitError:
            return False
        known = all(LEAST_LOSS <= loss <= MOST_LOSS for loss in (anchor.predicted, anchor.measured))
        return known and 0 <= anchor.spread <= MOST_SPREAD
    if key.startswith((LOSSES, BY_FORMAT)):
        return _is_table(value)
    if key.startswith(MEASURED):
        return isinstance(value, dict) and all(_is_table(each) for each in value.values())
    return _is_number(value)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_number(number) for number in value.values())


def _is_number(value: Any) -> bool:
    """Return whether it can be a loss, a factor or a count."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST_LOSS
