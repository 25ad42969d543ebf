"""IQ3_XXS: the search of the IQ3 formats."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thriftbit.formats.iq3_xxs import GRID

from .iq3 import Settings, search

SETTINGS = Settings(GRID, unit=0.25, even_signs=True)


def encode(x: NDArray[np.float32], importance: NDArray[np.float32] | None) -> NDArray[np.uint8]:
    return GRID.pack(search(x, importance, SETTINGS))
