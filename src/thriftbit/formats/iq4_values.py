"""The sixteen uneven values of IQ4_NL and IQ4_XS: closer together near zero, where most weights are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray

VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
_BETWEEN = (VALUES[:-1] + VALUES[1:]) / 2


class IQ4Values:
    @property
    def starts(self) -> Sequence[float]:
        as_llama_cpp = [k - 7 - 127 for k in range(15)]
        beyond = [-127 * place for place in (0.75, 0.8, 0.85, 0.9, 1.1, 1.2, 1.3, 1.4, 1.5)]
        other_end = [113 * (0.75 + k * 0.6 / 11) for k in range(12)]
        return as_llama_cpp + beyond + other_end

    def nearest(self, y: FloatArray) -> FloatArray:
        result: FloatArray = VALUES[np.searchsorted(_BETWEEN, y)]
        return result


def levels_of(values: FloatArray) -> ByteArray:
    """Where each value stands in the list."""
    return np.searchsorted(VALUES, values).astype(np.uint8)
