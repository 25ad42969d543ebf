"""A model's map as one HTML page that needs nothing else: the frontier, presets and our plans on the same axes.

Everything on the page is predicted, and says so. The few plans that were measured, to correct the predictions, are
listed. There is no script, because there is nothing to operate.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from thriftbit.containers.atomic_file import AtomicFile
from thriftbit.quantization.model_frontier import Point, best_points, preset_points
from thriftbit.quantization.sensitivity import TWO_SIGMA, Sensitivities
from thriftbit.report.labels import Box, Label, first_free, label_places
from thriftbit.report.numbers import significant
from thriftbit.report.page import TEMPLATES
from thriftbit.report.scales import LogScale, nice_ticks, size_tick
from thriftbit.sizes import describe_bytes
from thriftbit.sources.model import Model
from thriftbit.strangers import shortened

LEAST_LOSS, MOST_LOSS = 1e-5, 100.0
RADIUS = 5.0
MARGINS = Box(76, 34, 10, 50)
LONGEST_NAME = 60


@dataclass(frozen=True)
class Mark:
    """point: what it stands for. x, y: where. label: None if there is no room."""

    point: Point
    x: float
    y: float
    label: Label | None


@dataclass(frozen=True)
class Drawing:
    """band: the outline of what the best plans are predicted to lose, line: its middle; both as SVG has them."""

    name: str
    width: float
    height: float
    plot: Box
    band: str
    line: str
    ours: tuple[Mark, ...]
    presets: tuple[Mark, ...]
    sizes: tuple[tuple[float, str], ...]
    losses: tuple[tuple[float, str], ...]


def write_map(
    model: Model, sensitivities: Sensitivities, effort: str, path: str | Path, *, force: bool = False
) -> Path:
    """Return the path, where the page then is, whole. effort: how files will be rounded. force: replace a file that is
    there. Raises ThriftbitError if the file exists or cannot be written."""
    page = render_map(model, sensitivities, effort).encode()
    with AtomicFile(path, len(page), force=force) as file:
        file.write(page)
    return Path(path)


def render_map(model: Model, sensitivities: Sensitivities, effort: str) -> str:
    """Return the HTML."""
    presets, ours = preset_points(model, sensitivities, effort), best_points(model, sensitivities, effort)
    beside = best_points(model, sensitivities, effort, [point.size_bytes for point in presets])
    pairs = [(preset, [own for own in beside if own.size_bytes <= preset.size_bytes]) for preset in presets]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"bytes": describe_bytes, "significant": significant}
    style = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "map.css"))
    return environment.get_template("map.html.j2").render(
        style=style,
        style_hash=f"sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}",
        name=shortened(model.source, LONGEST_NAME),
        effort=effort,
        model_bytes=model.size_bytes,
        drawings=[_draw(presets, ours, "wide", 760, 460), _draw(presets, ours, "narrow", 344, 400)],
        pairs=[(preset, own[-1] if own else None) for preset, own in pairs],
        factor=math.exp(TWO_SIGMA * sensitivities.trust(effort).spread),
        anchors=sensitivities.anchors,
    )


def _draw(presets: Sequence[Point], ours: Sequence[Point], name: str, width: float, height: float) -> Drawing:
    points = [*presets, *ours]
    scale = LogScale.around((end for p in points for end in (p.loss.low, p.loss.high)), LEAST_LOSS, MOST_LOSS)
    plot = Box(MARGINS.left, MARGINS.top, width - MARGINS.right, height - MARGINS.bottom)
    smallest, largest = (end(point.size_bytes for point in points) for end in (min, max))
    margin = 0.05 * (largest - smallest) or 0.2 * largest
    left, right = smallest - margin, largest + margin

    def x(size_bytes: float) -> float:
        return plot.left + (size_bytes - left) / (right - left) * (plot.right - plot.left)

    def y(loss: float) -> float:
        return plot.bottom - scale.place(max(loss, LEAST_LOSS)) * (plot.bottom - plot.top)

    line = [(x(p.size_bytes), y(p.loss.value)) for p in ours]
    outline = [(x(p.size_bytes), y(p.loss.high)) for p in ours]
    outline += [(x(p.size_bytes), y(p.loss.low)) for p in reversed(ours)]
    taken = [Box(a - RADIUS, b - RADIUS, a + RADIUS, b + RADIUS) for a, b in line]
    places = [(p, x(p.size_bytes), y(p.loss.value)) for p in presets]
    taken += [Box(a - RADIUS, b - RADIUS, a + RADIUS, b + RADIUS) for _, a, b in places]
    marks = []
    for point, at_x, at_y in places:
        found = first_free(list(label_places(at_x, at_y, RADIUS, point.name, "")), plot, taken)
        if found:
            taken.append(found[1])
        marks.append(Mark(point, at_x, at_y, found[0] if found else None))
    ticks = nice_ticks(left, right, int((plot.right - plot.left) / 84))
    return Drawing(
        name,
        width,
        height,
        plot,
        _path(outline),
        _path(line),
        tuple(Mark(p, a, b, None) for p, (a, b) in zip(ours, line, strict=True)),
        tuple(marks),
        tuple((x(size), size_tick(size)) for size in ticks),
        tuple((y(loss), significant(loss, 1) if loss >= 1e-4 else f"{loss:g}") for loss in scale.ticks()),
    )


def _path(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
