"""What the searches of IQ4_NL and IQ4_XS share: starts, and the nearest of the sixteen uneven values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.formats.iq4_nl import VALUES

from . import llama_cpp

_BETWEEN = (VALUES[:-1] + VALUES[1:]) / 2


class IQ4Values:
    @property
    def starts(self) -> Sequence[float]:
        return [-127 * (0.75 + k * 0.7 / 13) for k in range(14)] + [113 * (0.75 + k * 0.6 / 13) for k in range(14)]

    def nearest(self, y: FloatArray) -> FloatArray:
        result: FloatArray = VALUES[np.searchsorted(_BETWEEN, y, side="right")]
        return result


class IQ4Starts(IQ4Values):
    """Where llama.cpp's search puts the weight of largest magnitude at the start."""

    value_first = True

    def factors(self, extreme: FloatArray) -> Iterable[FloatArray]:
        yield np.float32(1) / (extreme / np.float32(127))
        for k in range(-7, 8):
            yield np.float32(k - 127) / extreme


def search_as_llama_cpp(
    x: FloatArray, columns_x: FloatArray, w: FloatArray, importance: FloatArray | None, block_size: int
) -> FloatArray:
    """Return llama.cpp's s, (blocks,). x: as given to an encoder. columns_x, w: (32, blocks)."""
    if importance is None:
        weights = columns_x * columns_x
    else:
        square = llama_cpp.mean_square(x.reshape(-1, block_size)) * np.float32(2)
        weights = llama_cpp.weights(columns_x, w, np.repeat(square, block_size // 32))
    return llama_cpp.search_symmetric(columns_x, weights, IQ4Starts())[0]


def levels_of(values: FloatArray) -> ByteArray:
    """Return the position of each value in the list of sixteen."""
    return np.searchsorted(VALUES, values).astype(np.uint8)
