"""The chart of loss against size: where its marks and labels go. The template only draws.

Loss is on a logarithmic axis. Size is on a linear axis that need not begin at zero, because the marks are points and
not bars. The area of a mark shows the writing speed. A line, the frontier, joins the files that no other file beats in
both size and loss. Text in a scaled drawing would shrink with it. So the page has two drawings with text of the same
size, for wide and for narrow windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from thriftbit.report.labels import Box, Label, first_free, label_places
from thriftbit.report.numbers import significant, times
from thriftbit.report.scales import LogScale, nice_ticks, size_tick
from thriftbit.report.summary import FileSummary, Summary
from thriftbit.report.verdict import LOSS_SCALE
from thriftbit.strangers import shortened

LEAST_LOSS, MOST_LOSS = 1e-4, 100.0  # of what the axis spans; the rest is drawn at its ends
LARGEST_RADIUS, SMALLEST_RADIUS, PLAIN_RADIUS = 12.0, 4.0, 7.0
MANY, SHRINKING = 8, 0.65  # from so many files on, markers are smaller by so much
LONGEST_LABEL = 18  # characters
BAND_CHARACTER_WIDTH, BAND_WORD_HEIGHT = 7.2, 18.0
STEPS = [word for word, _ in LOSS_SCALE]
TICK_GAP = 84.0  # between ticks of size
TICK_MARK, TICK_CHARACTER_WIDTH = 9.0, 8.2


@dataclass(frozen=True)
class PlottedFile:
    """number: the file's place in the summary. low_y, high_y: the ends of its interval."""

    number: int
    x: float
    y: float
    low_y: float
    high_y: float
    radius: float
    best: bool
    label: Label | None


@dataclass(frozen=True)
class Tick:
    place: float
    text: str


@dataclass(frozen=True)
class Band:
    """step: its place in the loss scale. label: where its word stands, None if there is no room."""

    word: str
    step: int
    top: float
    bottom: float
    label: Label | None


@dataclass(frozen=True)
class Frontier:
    """name: tells the two drawings apart. plot: where the points are. floor: the loss below which points are drawn as
    if they had that, 0.0 if there are none."""

    name: str
    width: float
    height: float
    plot: Box
    floor: float
    points: tuple[PlottedFile, ...]
    sizes: tuple[Tick, ...]
    losses: tuple[Tick, ...]
    bands: tuple[Band, ...]

    @property
    def line(self) -> str:
        """Return the frontier, as an SVG polyline's points."""
        best = sorted((point for point in self.points if point.best), key=lambda point: point.x)
        return " ".join(f"{point.x:.1f},{point.y:.1f}" for point in best)


def draw_frontiers(summary: Summary) -> tuple[Frontier, ...]:
    """Return the wide drawing and the narrow one; nothing if no loss is known."""
    if not any(summary.loss(file) for file in summary.files):
        return ()
    return _draw(summary, "wide", 760, 460), _draw(summary, "narrow", 344, 400)


def _draw(summary: Summary, name: str, width: float, height: float) -> Frontier:
    files = [(number, file) for number, file in enumerate(summary.files) if summary.loss(file)]
    intervals = [_interval(summary, file) for _, file in files]
    scale = LogScale.around((end for interval in intervals for end in interval), LEAST_LOSS, MOST_LOSS)
    losses = [(loss, significant(loss, 1)) for loss in scale.ticks()]
    plot = Box(TICK_MARK + max(len(text) for _, text in losses) * TICK_CHARACTER_WIDTH, 34, width - 10, height - 50)
    sizes = [float(file.subject.size_bytes) for _, file in files]
    smallest, largest = min(sizes), max(sizes)
    margin = 0.08 * (largest - smallest) or 0.2 * largest
    left, right = smallest - margin, largest + margin

    def x(size_bytes: float) -> float:
        return plot.left + (size_bytes - left) / (right - left) * (plot.right - plot.left)

    def y(loss: float) -> float:
        return plot.bottom - scale.place(max(loss, LEAST_LOSS)) * (plot.bottom - plot.top)

    points = [
        PlottedFile(number, x(size), y(value), y(low), y(high), radius, best, None)
        for (number, _), size, (low, value, high), radius, best in zip(
            files, sizes, intervals, _radii([file for _, file in files]), _undominated(sizes, intervals), strict=True
        )
    ]
    bands, words = _bands(scale, plot, points)
    ticks = [(x(size), size_tick(size)) for size in nice_ticks(left, right, int((plot.right - plot.left) / TICK_GAP))]
    return Frontier(
        name=name,
        width=width,
        height=height,
        plot=plot,
        floor=LEAST_LOSS if any(value < LEAST_LOSS for _, value, _ in intervals) else 0.0,
        points=tuple(_labelled(points, [file for _, file in files], plot, words)),
        sizes=tuple(Tick(at, text) for at, text in ticks if at + len(text) * TICK_CHARACTER_WIDTH / 2 < width),
        losses=tuple(Tick(y(loss), text) for loss, text in losses),
        bands=tuple(bands),
    )


def _interval(summary: Summary, file: FileSummary) -> tuple[float, float, float]:
    """Return low, value, high."""
    row = summary.loss(file)
    assert row is not None and row.value is not None
    return (
        row.value if row.low is None else row.low,
        row.value,
        row.value if row.high is None else row.high,
    )


def _radii(files: Sequence[FileSummary]) -> list[float]:
    rates = [row.value if (row := file.cost("decode_rate")) else None for file in files]
    size = SHRINKING if len(files) > MANY else 1.0
    fastest = max((rate for rate in rates if rate), default=0.0)
    return [
        max(LARGEST_RADIUS * size * (rate / fastest) ** 0.5, SMALLEST_RADIUS)
        if rate and rate > 0
        else PLAIN_RADIUS * size
        for rate in rates
    ]


def _undominated(sizes: Sequence[float], intervals: Sequence[tuple[float, float, float]]) -> list[bool]:
    """Return the files for which no other file is both smaller and closer to the original."""
    losses = [value for _, value, _ in intervals]
    pairs = list(zip(sizes, losses, strict=True))
    return [
        not any(size <= own_size and loss <= own_loss and (size, loss) != (own_size, own_loss) for size, loss in pairs)
        for own_size, own_loss in pairs
    ]


def _bands(scale: LogScale, plot: Box, points: Sequence[PlottedFile]) -> tuple[list[Band], list[Box]]:
    """Return the steps of the loss scale, and where their words stand: at the right end, or the left if a point is
    there."""
    bands, boxes = [], []
    for word, begin, end in scale.bands():
        top, bottom = (plot.bottom - place * (plot.bottom - plot.top) for place in (end, begin))
        width = len(word) * BAND_CHARACTER_WIDTH
        label = None
        for x, left, anchor in (
            (plot.right - 4, plot.right - 4 - width, "end"),
            (plot.left + 4, plot.left + 4, "start"),
        ):
            box = Box(left, top, left + width, top + BAND_WORD_HEIGHT)
            free = not any(box.overlaps(other) for point in points for other in (_marker(point), _whisker(point)))
            if free and box.bottom <= bottom and not label:
                label = Label(word, "", x, top + 15, anchor)
                boxes.append(box)
        bands.append(Band(word, STEPS.index(word), top, bottom, label))
    return bands, boxes


def _labelled(
    points: Sequence[PlottedFile], files: Sequence[FileSummary], plot: Box, words: Sequence[Box]
) -> Iterator[PlottedFile]:
    """Return the points with labels where there is room for them; what has none is told when it is pointed at."""
    taken = [*map(_marker, points), *map(_whisker, points), *words]
    line = list(_along(points))
    for point, file in zip(points, files, strict=True):
        ratio = file.cost("decode_rate_ratio")
        notes = [times(ratio.value), ""] if ratio and ratio.value else [""]
        text = shortened(file.label, LONGEST_LABEL)
        places = [place for note in notes for place in label_places(point.x, point.y, point.radius, text, note)]
        found = first_free(places, plot, taken + line) or first_free(places, plot, taken)
        if found:
            taken.append(found[1])
        yield replace(point, label=found[0] if found else None)


def _along(points: Sequence[PlottedFile]) -> Iterator[Box]:
    """Return small boxes along the line of the frontier, so that it does not run through labels."""
    best = sorted((point for point in points if point.best), key=lambda point: point.x)
    for one, other in pairwise(best):
        steps = int(max(other.x - one.x, abs(other.y - one.y)) / 6) + 1
        for step in range(1, steps):
            x = one.x + (other.x - one.x) * step / steps
            y = one.y + (other.y - one.y) * step / steps
            yield Box(x - 1, y - 3, x + 1, y + 3)


def _marker(point: PlottedFile) -> Box:
    r = point.radius + 1
    return Box(point.x - r, point.y - r, point.x + r, point.y + r)


def _whisker(point: PlottedFile) -> Box:
    return Box(point.x - 3, point.high_y, point.x + 3, point.low_y)
