"""Weights to encode: made ones, and the demo model's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

KINDS = ("gaussian", "heavy-tailed", "demo model")


def weights(kind: str, rows: int, width: int = 1024, seed: int = 0) -> FloatArray:
    """Return float32 (rows, width), about the size of a language model's weights."""
    random = np.random.default_rng(seed)
    match kind:
        case "gaussian":
            x = 0.02 * random.standard_normal((rows, width))
        case "heavy-tailed":
            x = 0.02 * random.standard_t(3, (rows, width))
        case "demo model":
            x = random.choice(_demo_rows(width), rows, replace=False)
        case _:
            raise ValueError(kind)
    return np.ascontiguousarray(x, np.float32)


def importance(width: int = 1024, seed: int = 1) -> FloatArray:
    """Return float32 (width,): as uneven as activations are, the largest some hundred times the median."""
    return np.random.default_rng(seed).lognormal(0, 1.2, width).astype(np.float32)


def _demo_rows(width: int) -> FloatArray:
    from thriftbit.demo import open_demo_model

    matrices = (tensor.load() for tensor in open_demo_model().tensors if len(tensor.shape) == 2)
    return np.concatenate([matrix.reshape(-1)[: matrix.size // width * width] for matrix in matrices]).reshape(
        -1, width
    )
