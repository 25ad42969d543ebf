"""Published losses of other models, for presets that were not measured here: a range, never a number.

The loss of a precision depends on the model. Large models lose less than small ones, models that were trained on more
text lose more, and mixtures of experts differ from dense models. So the range is that of the published models of the
same kind and nearest in size. For models smaller or larger than all of these, the range is widened. The tables and
their sources are in `literature.json`.

Hardly any table has every preset, but presets have to be comparable. A preset that a table lacks is interpolated
between its neighbours in the table, on a scale that all tables together give: the logarithm of a loss is modelled as a
level of the table plus a step of the preset, both fitted to all published losses."""

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

_LEAST_LOSS = 0.0002  # smaller published losses, and gains, are noise
_ROUNDS = 30  # of fitting levels and steps alternately, which converges in ten
_NEAR = 2.5  # models up to this factor smaller or larger count as near
_FEWEST_NEAR = 3  # tables that a range is made of
_WIDEST = 4.0  # a range is never widened by more: a judgement
_MORE = 1.001  # the least factor between the losses of neighbouring presets
_CLOSE = 0.1  # steps that are closer together give no slope


@dataclass(frozen=True, eq=False)
class Published:
    """One published table. losses: the share by which perplexity rose, by preset. importance: whether with an
    importance matrix. mixture: whether the model is a mixture of experts."""

    model: str
    billions: float
    losses: Mapping[str, float]
    importance: bool
    mixture: bool
    source: str
    address: str


def literature_loss(preset: str, parameters: float, mixture: bool = False) -> Prediction | None:
    """Return the share by which perplexity rises with a preset: low and high are the range, and value is its middle, by
    which presets are ordered. Returns None if nothing is published.

    preset: by llama.cpp's name. parameters: the number of all parameters of the model. mixture: whether it is a mixture
    of experts."""
    return _ranges(parameters / 1e9, mixture).get(preset)


@cache
def _ranges(billions: float, mixture: bool) -> Mapping[str, Prediction]:
    """Return the range of every preset. A preset that loses more than another in all tables together never gets a
    smaller loss only because its range comes from other tables."""
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
    """Return the loss of the preset in the tables of the same kind that are nearest in size; at least three tables."""
    losses = {row: loss for row in published() if row.mixture == mixture and (loss := _loss(row, preset)) is not None}
    rows = sorted(losses, key=lambda row: _apart(row, billions))
    near = [row for row in rows if _apart(row, billions) <= math.log(_NEAR)]
    return {row: losses[row] for row in (near if len(near) >= _FEWEST_NEAR else rows[:_FEWEST_NEAR])}


def _apart(row: Published, billions: float) -> float:
    return abs(math.log(row.billions / max(billions, 1e-3)))


def _widening(billions: float, known: Iterable[float]) -> float:
    """Return the factor by which the range is widened for a model smaller or larger than all published ones; else 1."""
    sizes = list(known)
    beyond = max(min(sizes) / max(billions, 1e-3), billions / max(sizes), 1.0)
    return min(_WIDEST, math.sqrt(beyond))


def _loss(row: Published, preset: str) -> float | None:
    """Return the loss of the preset in this table. If the table lacks it, the loss is interpolated between the nearest
    presets in the table; None beyond these."""
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
    """Return the step of each preset: the logarithm of its loss minus the level of the table, averaged over tables."""
    tables = [{preset: math.log(loss) for preset, loss in row.losses.items()} for row in published()]
    steps = dict.fromkeys(sorted({preset for table in tables for preset in table}), 0.0)
    for _ in range(_ROUNDS):
        levels = [median(log - steps[preset] for preset, log in table.items()) for table in tables]
        steps = {
            preset: fmean(table[preset] - level for table, level in zip(tables, levels, strict=True) if preset in table)
            for preset in steps
        }
    return steps
