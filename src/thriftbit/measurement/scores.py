"""What is asked of a model and what it answers: passages of tokens, and what it says of each token in them."""

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
    """What one model says of a passage, (scored,) each: log_probability of the token that follows, natural.
    divergence: KL divergence of the model's distribution from the first model's, in nats; 0 for the first itself.
    same_top: whether both find the same token the likeliest."""

    log_probability: Floats
    divergence: Floats
    same_top: NDArray[np.bool_]
