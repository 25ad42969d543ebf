"""GPTQ: whole numbers of 2 to 8 bits, packed along the inputs, so that a stored column is a row of the weight.

With act-order, `g_idx` gives the group of every input. Zero points are stored minus one, except in the later
`checkpoint_format` "gptq_v2". AutoRound writes the same tensors. Source: GPTQModel's nn_modules/qlinear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thriftbit.sources.packed.bits import Codes, unpack_bits, words_of
from thriftbit.sources.packed.groups import Groups
from thriftbit.sources.packed.module import Module, as_float32, small_values, stored
from thriftbit.sources.tensor import FloatArray, Tensor

BITS = (2, 3, 4, 5, 6, 7, 8)


def unpack(module: Module) -> Tensor:
    weight, scales, zeros = module["qweight"], module["scales"], module["qzeros"]
    bits = module.whole("bits", choices=BITS)
    module.expect("qweight", dtypes=("I32", "U32"))
    width, rows = weight.shape[0] * 32 // bits, weight.width
    group = _group(module, width)
    groups = -(-width // group)
    module.expect("qweight", (words_of(bits, width), rows))
    module.expect("scales", (groups, rows))
    module.expect("qzeros", (groups, words_of(bits, rows)), dtypes=("I32", "U32"))
    subtracted = 1 if _is_first_version(module.settings) else 0

    def read_codes(start: int, stop: int) -> Codes:
        return unpack_bits(stored(weight).stored_columns(start, stop).T, bits, width)

    def read_scales(start: int, stop: int) -> FloatArray:
        return as_float32(scales, stored(scales).stored_columns(start, stop)).T

    def read_zeros(start: int, stop: int) -> FloatArray:
        first = start // 32 * bits  # the first word; 32 numbers fill whole words, whatever their bits
        words = stored(zeros).stored_columns(first, min(-(-stop // 32) * bits, zeros.width))
        codes = unpack_bits(words, bits, min(-(-stop // 32) * 32, rows) - start // 32 * 32)
        kept = codes[:, start % 32 : start % 32 + stop - start].T.astype(np.int32)
        return (kept + subtracted & (1 << bits) - 1).astype(
            np.float32
        )  # a zero point of 0 is stored as the largest code

    order = _order(module, width, group, groups)
    return module.tensor(
        (rows, width),
        Groups(rows, width, group, bits, read_codes, read_scales, zeros=read_zeros, order=order).reader(),
    )


def _is_first_version(settings: Mapping[str, Any]) -> bool:
    """Return whether zero points are stored minus one: yes by default, no in AutoRound's own layout."""
    layout = str(
        settings.get("packing_format") or settings.get("checkpoint_format") or settings.get("format") or "gptq"
    )
    return "gptq" in layout.lower() and not layout.lower().endswith("v2")


def _group(module: Module, width: int) -> int:
    group = module.settings.get("group_size")
    return width if group == -1 else min(module.whole("group_size"), width)


def _order(module: Module, width: int, group: int, groups: int) -> NDArray[np.intp] | None:
    """Return the group of each column; None where groups are in order."""
    index = module.get("g_idx")
    if index is None:
        return None
    module.expect("g_idx", (width,), dtypes=("I32", "I64"))
    order = small_values(index).astype(np.intp)
    if not ((order >= 0) & (order < groups)).all():
        raise module.error(f"has groups in {index.name!r} that do not exist: there are {groups}")
    return None if (order == np.arange(width) // group).all() else order
