"""Places for the labels of points, so that no label lies on anything else.

A browser knows how wide a text is, and a template does not. So widths are estimated for the widest common font; a label
that fits here fits everywhere. Places are tried one after the other, which is good enough for a dozen points along a
line. If no place is free, there is no label.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

HEIGHT, CHARACTER_WIDTH, WIDE_CHARACTER_WIDTH = 17.0, 9.0, 14.5  # of letters of 13 pixels
GAP = 7.0  # between a marker and its label, for the ring of what has the focus


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def within(self, other: Box) -> bool:
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )


@dataclass(frozen=True)
class Label:
    """text: of the file. note: its speed, or "". x, y: of the baseline's start, middle or end, as `anchor` says."""

    text: str
    note: str
    x: float
    y: float
    anchor: str


def first_free(positions: Sequence[tuple[Label, Box]], plot: Box, taken: Sequence[Box]) -> tuple[Label, Box] | None:
    """Return the first place within the plot that overlaps nothing."""
    for label, box in positions:
        if box.within(plot) and not any(box.overlaps(other) for other in taken):
            return label, box
    return None


def label_places(x: float, y: float, radius: float, text: str, note: str) -> Iterator[tuple[Label, Box]]:
    """Return places for the label, the best first: beside the marker, then above and below it."""
    width = text_width(f"{text} {note}" if note else text)
    reach = radius + GAP
    rise, fall = HEIGHT * 0.75, HEIGHT * 0.25  # of a label around its baseline
    above, below = y - reach - fall, y + reach + rise - 2
    places = [
        *((x + reach, y + drop * rise, "start") for drop in (0.4, -0.3)),
        *((x - reach, y + drop * rise, "end") for drop in (0.4, 1.0)),
        *((x, baseline, "middle") for baseline in (above, below)),
        *((x + radius, baseline, "end") for baseline in (above, below)),
        *((x - radius, baseline, "start") for baseline in (above, below)),
        (x + reach, y + rise, "start"),
        (x - reach, y - 0.3 * rise, "end"),
    ]
    for at, baseline, anchor in places:
        left = at - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
        yield Label(text, note, at, baseline, anchor), Box(left, baseline - rise, left + width, baseline + fall)


def text_width(text: str) -> float:
    return sum(WIDE_CHARACTER_WIDTH if c in "WM@%" or ord(c) > 0x1100 else CHARACTER_WIDTH for c in text)
