"""The specification of every encoder: its search as readable numpy.

The kernels in `native/` are the same searches, made fast, and give the same bytes. `encoder_of` finds the specification
of a format by its name: NAME.py has `encode(x, importance)`. Formats that only round have no search; their encoder in
the package is the specification.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thriftbit.formats import Format

Encoder = Callable[[NDArray[np.float32], NDArray[np.float32] | None], NDArray[np.uint8]]


def encoder_of(format: Format) -> Encoder:
    """Return (x (rows, width), importance (rows, width) or None) -> uint8 (blocks, block bytes)."""
    name = format.name.lower()
    if (Path(__file__).parent / f"{name}.py").exists():
        found: Encoder = importlib.import_module(f"{__name__}.{name}").encode
        return found
    assert format.encode_blocks is not None
    return format.encode_blocks
