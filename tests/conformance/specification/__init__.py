"""The encoders of the kernels as readable numpy: what `native/` has to give, byte for byte.

A file here has the search of one format, where the encoder in the package is a plainer one.
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
