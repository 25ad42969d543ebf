"""FP8 and INT8: every weight is stored as one small number, and multiplied by a scale that is shared by the whole
tensor, by a row, by a column or by a block of 128 x 128.

DeepSeek, Qwen and MiniMax call the scale of a block `weight_scale_inv` (weights are multiplied by it nonetheless),
compressed-tensors and ModelOpt `weight_scale`, Mistral's own layout `qscale_weight`. Sources: transformers'
integrations/finegrained_fp8.py and fbgemm_fp8.py, compressed_tensors/compressors/naive_quantized."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from thriftbit.errors import shown
from thriftbit.sources.packed.module import Module, as_float32, numbers, stored
from thriftbit.sources.safetensors_file import READABLE
from thriftbit.sources.tensor import FloatArray, Tensor

_Rows = Callable[[int, int], FloatArray]


def unpack(module: Module) -> Tensor:
    weight = module["weight"]
    scales = _scales(module)
    zeros = module.get("weight_zero_point")
    zero_points = _by_row(module, zeros) if zeros is not None else None

    def read(start: int, stop: int) -> FloatArray:
        values = as_float32(weight, stored(weight).stored(start, stop))
        if zero_points is not None:
            values -= zero_points(start, stop)
        values *= scales(start, stop)
        return values

    return module.tensor(weight.shape, read)


def plain(tensor: Tensor) -> Tensor:
    """Return the same weights, stored as FP8 without any scale. BF16 holds all of them."""

    def read(start: int, stop: int) -> FloatArray:
        return as_float32(tensor, stored(tensor).stored(start, stop))

    return replace(tensor, source_dtype="BF16", read=read, packed_bits=8.0)


def _scales(module: Module) -> _Rows:
    """Return a function from (start, stop) to float32 scales that broadcast against those rows of the weight."""
    weight, scale = module["weight"], module["scale"]
    module.expect("scale", dtypes=(*READABLE, "F8_E8M0", "U8", "F8_E4M3"))
    height, width = weight.matrix_rows, weight.width
    by_block = _block(module)
    if by_block is not None and scale.parameters > 1 and len(scale.shape) > 1:
        down, across = by_block
        grid = (*weight.shape[:-2], -(-height // down), -(-width // across))
        if scale.shape == grid:
            return _by_block(weight, scale, down, across)
        module.expect("scale", grid, (*weight.shape[:-1], 1))
    return _by_row(module, scale)


def _by_row(module: Module, scale: Tensor) -> _Rows:
    """Return such a function for scales of the whole tensor, of matrices, of rows, of columns or of groups in a row."""
    weight = module["weight"]
    height, width, lead = weight.matrix_rows, weight.width, weight.shape[:-2]
    count = scale.parameters
    if count == 1:
        return lambda start, stop: numbers(scale)
    if scale.shape in ((*weight.shape[:-1], 1), weight.shape[:-1]):
        whole = stored_flat(scale)
        return lambda start, stop: whole(start, stop)[:, None]
    if lead and scale.shape in (lead, (*lead, 1), (*lead, 1, 1)):
        whole = stored_flat(scale)
        return lambda start, stop: np.repeat(whole(start // height, -(-stop // height)), height)[
            start % height : start % height + stop - start, None
        ]
    if lead and scale.shape == (*lead, 1, width):
        return lambda start, stop: np.repeat(numbers(scale, start // height, -(-stop // height)), height, axis=0)[
            start % height : start % height + stop - start
        ]
    if not lead and scale.shape == (1, width) and height > 1:
        return lambda start, stop: numbers(scale)
    group = module.settings.get("group_size")
    if isinstance(group, int) and not isinstance(group, bool) and group > 0:
        groups = -(-width // group)
        module.expect("scale", (*weight.shape[:-1], groups))
        return lambda start, stop: np.repeat(numbers(scale, start, stop), group, axis=1)[:, :width]
    module.expect("scale", (1,), (*weight.shape[:-1], 1))
    raise AssertionError("a shape that was accepted was not read")


def stored_flat(scale: Tensor) -> _Rows:
    """Return a function from (start, stop) to float32 (stop - start,): numbers of the tensor, whatever its shape."""
    return lambda start, stop: as_float32(scale, stored(scale).stored_items(start, stop))


def _by_block(weight: Tensor, scale: Tensor, down: int, across: int) -> _Rows:
    height, width = weight.matrix_rows, weight.width
    blocks_down = -(-height // down)

    def read(start: int, stop: int) -> FloatArray:
        rows = np.arange(start, stop)
        of_row = rows // height * blocks_down + rows % height // down
        first = int(of_row[0]) if len(rows) else 0
        last = int(of_row[-1]) + 1 if len(rows) else 0
        scales = np.repeat(numbers(scale, first, last), across, axis=1)[:, :width]
        rows_of_scales: FloatArray = scales[of_row - first]
        return rows_of_scales

    return read


def _block(module: Module) -> tuple[int, int] | None:
    """Return rows and columns of the blocks that share a scale, where the configuration says so."""
    block: Any = module.settings.get("weight_block_size") or module.settings.get("block_structure")
    if block is None:
        return None
    if isinstance(block, str):  # "128x128"
        block = [int(size) if size.isdecimal() else 0 for size in block.split("x")]
    sizes = block if isinstance(block, list) else []
    if len(sizes) != 2 or not all(type(size) is int and 0 < size <= 1 << 20 for size in sizes):
        raise module.error(f"has the weight_block_size {shown(block)}, which should be two whole numbers")
    return sizes[0], sizes[1]
