"""compressed-tensors' "pack-quantized": whole numbers of 2 to 8 bits in words of 32, with scales for groups of columns,
for rows or for everything, and perhaps zero points, packed along the rows. Kimi K2 Thinking is published so.

Source: compressed_tensors/compressors/pack_quantized. The library's formats for FP8, INT8, MXFP4 and NVFP4 are read by
the files of these names.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thriftbit.sources.packed.bits import Codes, unpack_bits, words_of
from thriftbit.sources.packed.groups import Groups
from thriftbit.sources.packed.module import Module, checked_shape, numbers, small_values, stored
from thriftbit.sources.tensor import FloatArray, Tensor

BITS = (2, 3, 4, 5, 6, 7, 8)


def unpack(module: Module) -> Tensor:
    weight, scales = module["weight_packed"], module["weight_scale"]
    bits = module.whole("num_bits", choices=BITS)
    rows, width = checked_shape(module, small_values(module["weight_shape"]), rank=2)
    module.expect("weight_packed", (rows, words_of(bits, width)), dtypes=("I32",))
    groups = scales.width if len(scales.shape) > 1 else 1
    module.expect("weight_scale", (rows, groups), (1,), (1, 1))
    group = _group(module, width, groups)
    zeros = module.get("weight_zero_point")
    if zeros is not None:
        module.expect("weight_zero_point", (words_of(bits, rows), groups), dtypes=("I32",))
    elif module.settings.get("symmetric") is False:
        raise module.error("is not symmetric, and its weight_zero_point is missing. Download the model again")
    one_scale = scales.parameters == 1
    middle = np.float32(1 << (bits - 1))

    def read_codes(start: int, stop: int) -> Codes:
        return unpack_bits(stored(weight).stored(start, stop), bits, width)

    def read_scales(start: int, stop: int) -> FloatArray:
        if one_scale:
            return np.repeat(numbers(scales), stop - start, axis=0)
        return numbers(scales, start, stop)

    def read_zeros(start: int, stop: int) -> FloatArray:
        if zeros is None:
            return np.full((stop - start, groups), middle, np.float32)
        first = start // 32
        words = stored(zeros).stored(first * bits, min(-(-stop // 32) * bits, zeros.rows))
        codes = unpack_bits(words.T, bits, min(-(-stop // 32) * 32, rows) - first * 32)
        return codes[:, start - first * 32 : stop - first * 32].T.astype(np.float32)

    order = _order(module, width, group, groups)
    grouped = Groups(rows, width, group, bits, read_codes, read_scales, zeros=read_zeros, order=order)
    return module.tensor((rows, width), grouped.reader())


def _group(module: Module, width: int, groups: int) -> int:
    if groups == 1:
        return width
    group = module.whole("group_size")
    if -(-width // group) != groups:
        raise module.error(
            f"has rows of {width} weights, which are {-(-width // group)} groups of group_size {group}, "
            f"and {groups} scales for each row in {module['weight_scale'].name!r}. Download the model again"
        )
    return group


def _order(module: Module, width: int, group: int, groups: int) -> NDArray[np.intp] | None:
    """Return the group of each column; None where groups are in order."""
    index = module.get("weight_g_idx")
    if index is None:
        return None
    module.expect("weight_g_idx", (width,), dtypes=("I32", "I64"))
    order = small_values(index).astype(np.intp)
    if (order == -1).all():
        return None
    if not ((order >= 0) & (order < groups)).all():
        raise module.error(f"has groups in {index.name!r} that do not exist: there are {groups}")
    return None if (order == np.arange(width) // group).all() else order
