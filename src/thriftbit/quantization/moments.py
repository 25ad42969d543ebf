"""Second moments in panels: the columns from `start` on, PANEL of them, from the diagonal down.

A moment is symmetric, so its lower triangle is enough. Each panel is computed, sent and stored by itself, so a moment
never has to be in memory twice. Stored panels are correlations in half precision: an entry divided by the roots of its
two diagonal entries. Those lie between -1 and 1, and an error of 2⁻¹² in them is far below the damping that rounding
adds. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from thriftbit.formats.format import FloatArray

PANEL = 1024
LARGEST_ROWS = 8192  # more outputs than that have no moment of gradients: it would take more than a layer


def panel_starts(width: int) -> range:
    return range(0, width, PANEL)


def roots(diagonal: FloatArray) -> FloatArray:
    """diagonal: float32 (width,). Return what entries are divided by: the roots, and 1 where the diagonal is 0."""
    found: FloatArray = np.sqrt(np.where(diagonal > 0, diagonal, 1), dtype=np.float32)
    return found


def packed(panel: NDArray[np.floating]) -> dict[str, NDArray[np.floating]]:
    """panel: (n, columns). Return what it is stored as: the lower triangle of its corner, and what is below."""
    columns = panel.shape[1]
    return {"corner": panel[:columns][np.tri(columns, dtype=np.bool_)], "below": panel[columns:]}


def unpacked(read: Callable[[str], NDArray[np.floating]], width: int) -> Iterator[NDArray[np.floating]]:
    """read: returns what is stored under "corner1024" or "below1024", for the panel that starts there. width: of the
    moment. Yield its panels."""
    for start in panel_starts(width):
        columns = min(PANEL, width - start)
        below = read(f"below{start}")
        panel = np.zeros((width - start, columns), below.dtype)
        panel[:columns][np.tri(columns, dtype=np.bool_)] = read(f"corner{start}")
        panel[columns:] = below
        yield panel


def from_panels(panels: Iterable[NDArray[np.floating]], scale: FloatArray | None, width: int) -> FloatArray:
    """panels: (width - start, PANEL or what is left) each, in order. scale: float32 (width,), by which rows and columns
    are multiplied; None for panels that hold the entries themselves. Return float32 (width, width)."""
    moment = np.empty((width, width), np.float32)
    for start, panel in zip(panel_starts(width), panels, strict=True):
        stop = min(start + PANEL, width)
        below = moment[start:, start:stop]
        below[:] = panel
        if scale is not None:
            below *= scale[start:, None]
            below *= scale[start:stop]
        corner = below[: stop - start]
        corner[:] = np.tril(corner) + np.tril(corner, -1).T
        moment[start:stop, stop:] = below[stop - start :].T
    return moment
