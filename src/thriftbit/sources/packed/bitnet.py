"""BitNet: weights of -1, 0 and 1 in two bits each, four quarters of the rows in one byte, and one scale.

A "bitlinear" layer divides its output by the scale, and an "autobitlinear" layer multiplies. Source: transformers'
integrations/bitnet.py.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from thriftbit.formats import format_named
from thriftbit.sources.packed.module import Module, numbers, stored
from thriftbit.sources.tensor import ByteArray, FloatArray, SameRows, Tensor

BLOCK = 256  # of TQ2_0


def unpack(module: Module) -> Tensor:
    weight, scale = module["weight"], module["weight_scale"]
    module.expect("weight", dtypes=("U8", "I8"))
    module.expect("weight_scale", (1,), (1, 1))
    height, width = weight.rows, weight.width
    multiplied = module.settings.get("linear_class", "bitlinear") == "autobitlinear"

    @cache
    def factor() -> np.float32:
        value = numbers(scale)[0, 0]
        if not np.isfinite(value) or value == 0:
            raise module.error(f"has the scale {value} in {scale.name!r}; the file is damaged")
        return np.float32(value if multiplied else 1 / value)

    def read(start: int, stop: int) -> FloatArray:
        signs = np.empty((stop - start, width), np.float32)
        for quarter in range(start // height, -(-stop // height)):
            first, last = max(start, quarter * height), min(stop, (quarter + 1) * height)
            packed = stored(weight).stored(first - quarter * height, last - quarter * height).view(np.uint8)
            codes = packed >> np.uint8(2 * quarter) & np.uint8(3)
            if (codes == 3).any():
                raise module.error(f"has values in {weight.name!r} that are not -1, 0 or 1; the file is damaged")
            signs[first - start : last - start] = codes.astype(np.float32) - 1
        return signs * factor()

    def format() -> str | None:
        held = np.float32(np.float16(factor())) == factor()
        return "TQ2_0" if held and width % BLOCK == 0 else None

    def blocks(start: int, stop: int) -> ByteArray:
        return format_named("TQ2_0").encode(read(start, stop))

    return module.tensor((4 * height, width), SameRows(read, format, blocks))
