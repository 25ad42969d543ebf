"""What others measured of other models, for presets of which nothing was measured here.

How much a precision loses depends on the model: the better trained, the more there is to lose; the same Q4_K_M costs
Llama 2 7B 1.4% and Llama 3 70B 5%. Presets have to be comparable with one another, so the number is always that of
the one model of which all presets were published, and the interval spans all models. It is widened beyond them, more
so for small models, which lose more than any published one. The table and its sources are in `literature.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from thriftbit.machine.prediction import Prediction

REFERENCE = "Llama 3 8B"
# How far a model that nobody published may lie beyond those that were: a judgement, by billions of parameters. (What
# we measured ourselves of one of 135 million, SmolLM2 in Q4_0, rose by 25%, three times the published 7.8%.)
_BEYOND = ((1.0, 4.0), (3.0, 1.75), (float("inf"), 1.5))


@dataclass(frozen=True)
class Published:
    """losses: by how much perplexity rose, as a share, for each preset. importance: with an importance matrix."""

    model: str
    billions: float
    losses: Mapping[str, float]
    importance: bool
    source: str
    address: str


def literature_loss(preset: str, parameters: float) -> Prediction | None:
    """parameters: of the model. -> by what share perplexity rises, for a preset of llama.cpp's; None where nothing is
    published"""
    known = [row for row in published() if preset in row.losses]
    of_reference = sorted((row for row in known if row.model == REFERENCE), key=lambda row: row.importance)
    if not of_reference:
        return None
    reference, others = of_reference[0], [row.losses[preset] for row in known]
    beyond = next(factor for limit, factor in _BEYOND if parameters / 1e9 < limit)
    matrix = ", with an importance matrix" if reference.importance else ""
    return Prediction(
        value=reference.losses[preset],
        low=min(others) / _BEYOND[-1][1],
        high=max(others) * beyond,
        reason=f"{reference.model} on WikiText-2{matrix} ({reference.source}), and how other models differ",
    )


@cache
def published() -> tuple[Published, ...]:
    document = json.loads(Path(__file__).with_name("literature.json").read_text(encoding="utf-8"))
    return tuple(_row(row, document["sources"][row["source"]]) for row in document["rows"])


def _row(row: Mapping[str, Any], source: Mapping[str, str]) -> Published:
    losses = {preset: ratio - 1 for preset, ratio in row.get("ratios", {}).items()}
    losses |= {preset: rise / row["perplexity"] for preset, rise in row.get("increases", {}).items()}
    return Published(
        model=row["model"],
        billions=row["billions"],
        losses=losses,
        importance=row.get("importance", False),
        source=source["title"].partition(":")[0],
        address=source["address"],
    )
