"""What others measured of other models, for presets of which nothing was measured here: a range, never a number.

How much a precision loses depends on the model: large ones lose less than small ones, well trained ones more than
others, mixtures of experts not what dense ones do. So the range is that of the published models of the same kind and
nearest in size; beyond the smallest and the largest of them it is widened. The tables and their sources are in
`literature.json`.

Hardly any table has every preset, and presets have to be comparable with one another. What a table lacks is read
between its own neighbours, on the scale that all tables together give: the logarithm of a loss is taken as a level of
the table plus a step of the preset, both fitted to all that was published.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean, median
from typing import Any

from thriftbit.machine.prediction import Prediction
from thriftbit.sizes import counted

_LEAST_LOSS = 0.0002  # what is published as less, or as a gain, is noise
_ROUNDS = 30  # of fitting levels and steps in turn, which converge in ten
_NEAR = 2.5  # times smaller or larger: how far the size of a model may be, to count as near
_FEWEST_NEAR = 3  # tables that a range is made of
_WIDEST = 4.0  # a range is never widened by more: a judgement
_MORE = 1.001  # times the loss of the preset before, at least
_CLOSE = 0.1  # steps that are closer say nothing about the slope between them


@dataclass(frozen=True, eq=False)
class Published:
    """losses: by how much perplexity rose, as a share, for each preset. importance: with an importance matrix.
    mixture: of experts."""

    model: str
    billions: float
    losses: Mapping[str, float]
    importance: bool
    mixture: bool
    source: str
    address: str


def literature_loss(preset: str, parameters: float, mixture: bool = False) -> Prediction | None:
    """parameters: of the model, all of them. mixture: of experts. Returns by what share perplexity rises, for a preset
    of llama.cpp's: low and high are the range, value is the middle that presets are ordered by; None where nothing is
    published."""
    return _ranges(parameters / 1e9, mixture).get(preset)


@cache
def _ranges(billions: float, mixture: bool) -> Mapping[str, Prediction]:
    """Return for every preset. A preset that loses more than another in all tables together is never said to lose less
    because another choice of tables has it."""
    found: dict[str, Prediction] = {}
    value = low = high = 0.0
    wider = _widening(billions, [row.billions for row in published() if row.mixture == mixture])
    for preset in sorted(_steps(), key=_steps().__getitem__):
        near = _near(billions, mixture, preset)
        value = max(_MORE * value, math.exp(fmean(map(math.log, near.values()))))
        low, high = max(low, min(near.values()) / wider), max(high, max(near.values()) * wider)
        found[preset] = Prediction(value, low, high, _whence(list(near), mixture))
    return found


def _whence(rows: Sequence[Published], mixture: bool) -> str:
    kind = "mixtures of experts" if mixture else "dense models"
    sizes = sorted(row.billions for row in rows)
    return (
        f"{counted(len(rows), 'public table')} of {kind} of {sizes[0]:.3g} to {sizes[-1]:.3g} billion parameters "
        f"({', '.join(dict.fromkeys(row.model for row in rows))})"
    )


@cache
def published() -> tuple[Published, ...]:
    document = json.loads(Path(__file__).with_name("literature.json").read_text(encoding="utf-8"))
    return tuple(_row(row, document["sources"][row["source"]]) for row in document["rows"])


def _row(row: Mapping[str, Any], source: Mapping[str, str]) -> Published:
    losses = {preset: ratio - 1 for preset, ratio in row.get("ratios", {}).items()}
    losses |= {preset: rise / row["perplexity"] for preset, rise in row.get("increases", {}).items()}
    losses |= {preset: math.expm1(nats) for preset, nats in row.get("divergences", {}).items()}
    return Published(
        model=row["model"],
        billions=row["billions"],
        losses={preset: max(loss, _LEAST_LOSS) for preset, loss in losses.items()},
        importance=row.get("importance", False),
        mixture=row.get("mixture", False),
        source=source["title"].partition(":")[0],
        address=source["address"],
    )


def _near(billions: float, mixture: bool, preset: str) -> dict[Published, float]:
    """Return the loss of the preset in the tables that are nearest in
    size, of models of the kind; in three at least."""
    losses = {row: loss for row in published() if row.mixture == mixture and (loss := _loss(row, preset)) is not None}
    rows = sorted(losses, key=lambda row: _apart(row, billions))
    near = [row for row in rows if _apart(row, billions) <= math.log(_NEAR)]
    return {row: losses[row] for row in (near if len(near) >= _FEWEST_NEAR else rows[:_FEWEST_NEAR])}


def _apart(row: Published, billions: float) -> float:
    return abs(math.log(row.billions / max(billions, 1e-3)))


def _widening(billions: float, known: Iterable[float]) -> float:
    """Return a factor for a model that is smaller or larger than all of which something is published."""
    sizes = list(known)
    beyond = max(min(sizes) / max(billions, 1e-3), billions / max(sizes), 1.0)
    return min(_WIDEST, math.sqrt(beyond))


def _loss(row: Published, preset: str) -> float | None:
    """Return the loss of the preset in this table. Where the table lacks the preset, the loss is read between the
    nearest presets that it has; None beyond them."""
    if preset in row.losses:
        return row.losses[preset]
    steps = _steps()
    known = sorted((steps[other], math.log(loss)) for other, loss in row.losses.items())
    wanted = steps[preset]
    if not known[0][0] - _CLOSE <= wanted <= known[-1][0] + _CLOSE:
        return None
    above = next((index for index, (step, _) in enumerate(known) if step >= wanted), len(known) - 1)
    (left, left_log), (right, right_log) = known[max(above, 1) - 1], known[max(above, 1)]
    slope = max(0.0, (right_log - left_log) / (right - left)) if right - left > _CLOSE else 1.0
    return math.exp(left_log + slope * (wanted - left))


@cache
def _steps() -> Mapping[str, float]:
    """Return for each preset, the logarithm of its loss above the middle of its table, averaged over all tables."""
    tables = [{preset: math.log(loss) for preset, loss in row.losses.items()} for row in published()]
    steps = dict.fromkeys(sorted({preset for table in tables for preset in table}), 0.0)
    for _ in range(_ROUNDS):
        levels = [median(log - steps[preset] for preset, log in table.items()) for table in tables]
        steps = {
            preset: fmean(table[preset] - level for table, level in zip(tables, levels, strict=True) if preset in table)
            for preset in steps
        }
    return steps
