"""How far an encoding is from the best that any code of its size could do.

A matrix of n rows and w columns whose weights are gaussian with variance σ², judged by trace(Eᵀ G E A), loses at least

    D = n · w · σ² · det(A)^(1/w) · det(G)^(1/n) · 2^(−2R)

with R bits per weight, whatever the code (reverse water-filling while no direction is drowned; Cover & Thomas, Elements
of Information Theory, 10.3.3). In decibels above that: 1.53 dB is what whole numbers lose against the best code of
infinite length, and blocks spend bits on their scales; what is left above is choices that could have been better.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thriftbit.quantization.curvature import Curvature


def decibels_above_limit(
    weights: NDArray[np.float32], errors: NDArray[np.float32], curvature: Curvature, bits_per_weight: float
) -> float:
    """curvature: as rounding uses it, damped, since a moment of few tokens has no determinant."""
    damped = curvature.damped()
    logarithm = _mean_logarithm(damped.columns)
    if damped.rows is not None:
        logarithm += _mean_logarithm(damped.rows)
    limit = weights.size * float(weights.var(dtype=np.float64)) * np.exp(logarithm) * 4.0**-bits_per_weight
    return float(10 * np.log10(damped.cost(errors) / limit))


def _mean_logarithm(matrix: NDArray[np.float32]) -> float:
    """Return log(det(matrix)) ÷ its size."""
    sign, logarithm = np.linalg.slogdet(matrix.astype(np.float64))
    assert sign > 0
    return float(logarithm) / len(matrix)
