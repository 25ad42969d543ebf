"""AWQ: numbers of 4 bits, packed along the outputs and, within a word, in an order that suits one GPU instruction.

A stored column holds eight rows of the weight. Only the layout "gemm" is read, which is what models are published in.
Source: AutoAWQ's awq/utils/packing_utils.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from thriftbit.sources.packed.bits import Codes
from thriftbit.sources.packed.groups import Groups
from thriftbit.sources.packed.module import Module, as_float32, stored
from thriftbit.sources.tensor import FloatArray, Tensor

SHIFTS = np.array([0, 4, 1, 5, 2, 6, 3, 7], np.uint32) * 4
"""The bit at which each of a word's eight numbers begins."""


def unpack(module: Module) -> Tensor:
    weight, scales = module["qweight"], module["scales"]
    version = str(module.settings.get("version", module.settings.get("format", "gemm"))).lower()
    if version not in ("gemm", "exllama", "ipex", "marlin_compatible"):
        raise module.error(f"is in AWQ's layout {version!r}; what is read is 'gemm', as most models are published")
    module.whole("bits", otherwise=4, choices=(4,))
    module.expect("qweight", dtypes=("I32", "U32"))
    width, rows = weight.shape[0], weight.width * 8
    group = width if module.settings.get("group_size") == -1 else min(module.whole("group_size", 128), width)
    groups = -(-width // group)
    module.expect("scales", (groups, rows))
    zeros = module.get("qzeros")
    if zeros is not None:
        module.expect("qzeros", (groups, weight.width), dtypes=("I32", "U32"))

    def read_codes(start: int, stop: int) -> Codes:
        return _columns(weight, start, stop)

    def read_scales(start: int, stop: int) -> FloatArray:
        return as_float32(scales, stored(scales).stored_columns(start, stop)).T

    def read_zeros(start: int, stop: int) -> FloatArray:
        if zeros is None:
            return np.full((stop - start, groups), 8, np.float32)
        return _columns(zeros, start, stop).astype(np.float32)

    grouped = Groups(rows, width, group, 4, read_codes, read_scales, zeros=read_zeros)
    return module.tensor((rows, width), grouped.reader())


def _columns(tensor: Tensor, start: int, stop: int) -> Codes:
    """Return uint8 (stop - start, rows of the tensor): a range of its unpacked columns, transposed."""
    words: NDArray[Any] = stored(tensor).stored_columns(start // 8, -(-stop // 8)).view(np.uint32)
    codes = ((words[:, :, None] >> SHIFTS) & 15).astype(np.uint8).reshape(len(words), -1)
    return codes[:, start % 8 : start % 8 + stop - start].T
