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
        places = [0.75 + k * 0.6 / 11 for k in range(12)]
        return [-127 * place for place in places] + [113 * place for place in places]

    def nearest(self, y: FloatArray) -> FloatArray:
        result: FloatArray = VALUES[np.searchsorted(_BETWEEN, y)]
        return result


def levels_of(values: FloatArray) -> ByteArray:
    """Where each value stands in the list."""
    return np.searchsorted(VALUES, values).astype("u1")
