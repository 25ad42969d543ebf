"""A model's frontier as its map predicts it: the losses of presets, and of the best plans, at their sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from thriftbit.quantization.allocation import Budget, find_plan
from thriftbit.quantization.gguf_file import file_layout
from thriftbit.quantization.plan import Plan, make_plan
from thriftbit.quantization.presets import PRESETS
from thriftbit.quantization.sensitivity import Loss, Sensitivities, offered_formats
from thriftbit.sources.model import Model

FROM_BITS = 16.0  # presets of so many bits are the model itself
MOST_BITS = 8.5
PLANS = 16
SMALLEST_MARGIN = 1.005  # of the smallest size there is: exactly there, nothing can be chosen


@dataclass(frozen=True)
class Point:
    """name: of the preset; "" for a plan of ours. loss: predicted. gap: how far the plan may be from the best, as a
    share of its loss; 0.0 for presets."""

    name: str
    plan: Plan
    size_bytes: int
    bits_per_weight: float
    loss: Loss
    gap: float


def preset_points(model: Model, sensitivities: Sensitivities, effort: str) -> list[Point]:
    """Return the presets below 16 bits whose formats the map knows, smallest first."""
    points = []
    for name in PRESETS:
        plan = make_plan(model, name, importance=True)
        bits = plan.bits_per_weight(model)
        known = all(
            plan.formats[tensor] in losses or plan.formats[tensor] == "F32"
            for tensor, losses in sensitivities.losses.items()
        )
        if known and bits < FROM_BITS * 0.95:
            size_bytes = file_layout(model, plan, effort=effort).file_size_bytes
            points.append(Point(name, plan, size_bytes, bits, sensitivities.predict(plan.formats, effort), 0.0))
    return sorted(points, key=lambda point: point.size_bytes)


def best_points(
    model: Model, sensitivities: Sensitivities, effort: str, sizes_bytes: Sequence[int] = ()
) -> list[Point]:
    """Return the best plan at each size, smallest first. Each loses less than the ones before.

    sizes_bytes: of the files that plans are wanted for; by default, sizes from the smallest to 8.5 bits.
    """
    wanted = sorted(sizes_bytes) or list(_spread(model, sensitivities, effort))
    points: list[Point] = []
    for size_bytes in wanted:
        found = find_plan(model, sensitivities, Budget(size_bytes=size_bytes), effort)
        if not points or found.loss.value < points[-1].loss.value:
            bits = found.plan.bits_per_weight(model)
            points.append(Point("", found.plan, found.size_bytes, bits, found.loss, found.gap))
    return points


def _spread(model: Model, sensitivities: Sensitivities, effort: str) -> Iterator[int]:
    """Return sizes, each larger than the one before by the same factor."""
    free = [tensor for tensor in model.tensors if tensor.name in sensitivities.losses]
    base = make_plan(model, "Q8_0")
    largest = file_layout(model, base, effort=effort).file_size_bytes
    fewest = sum(
        tensor.parameters * (MOST_BITS - min(format.bits_per_weight for format in offered_formats(tensor)))
        for tensor in free
    )
    smallest = SMALLEST_MARGIN * (largest - fewest / 8)
    yield from (round(size) for size in np.geomspace(smallest, largest, PLANS))
