"""What a model is asked and what it predicts: passages of tokens, and scores for each token in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Passage:
    """tokens: of a text. scored: ascending positions, each of which predicts the token after it."""

    tokens: Sequence[int]
    scored: Sequence[int]


@dataclass(frozen=True)
class Scores:
    """What one model predicts in a passage, each of shape (scored,). log_probability: natural logarithm, of the token
    that follows. divergence: KL divergence of the model's distribution from the first model's, in nats; 0 for the first
    model itself. same_top: whether both find the same token the likeliest."""

    log_probability: Floats
    divergence: Floats
    same_top: NDArray[np.bool_]
