"""NVFP4: numbers of 4 bits (E2M1) in groups of 16, each group with an FP8 scale, and one scale for the whole tensor.

ModelOpt stores `weight`, `weight_scale` and `weight_scale_2`, a factor. compressed-tensors stores `weight_packed`,
`weight_scale` and `weight_global_scale`, a divisor. GGML's blocks hold the groups and their scales, too, but not the
scale of the tensor (docs/packed.md). Source: NVIDIA ModelOpt's NVFP4QTensor."""

from __future__ import annotations

import numpy as np

from thriftbit.sources.packed.bits import E2M1
from thriftbit.sources.packed.module import Module, numbers, stored
from thriftbit.sources.packed.mxfp4 import halves
from thriftbit.sources.packed.scaled import stored_flat
from thriftbit.sources.tensor import ByteArray, FloatArray, SameRows, Tensor
from thriftbit.sources.views import multiplied_by

GROUP, GROUPS_IN_BLOCK = 16, 4


def unpack_modelopt(module: Module) -> Tensor:
    return _unpack(module, module["weight"], module.get("weight_scale_2"), inverted=False)


def unpack_compressed(module: Module) -> Tensor:
    return _unpack(module, module["weight_packed"], module.get("weight_global_scale"), inverted=True)


def _unpack(module: Module, packed: Tensor, overall: Tensor | None, inverted: bool) -> Tensor:
    scales, width, lead = module["weight_scale"], packed.width * 2, packed.shape[:-1]
    if width % GROUP:
        raise module.error(f"has rows of {width} weights, which groups of {GROUP} do not divide")
    module.expect("weight_scale", (*lead, width // GROUP), dtypes=("F8_E4M3",))
    if overall is None:
        raise module.error("lacks the scale of the whole tensor (weight_scale_2). Download the model again")
    matrices = packed.rows // packed.matrix_rows
    if overall.parameters not in (1, matrices):
        raise module.error(f"needs one number in {overall.name!r}, and its shape is {overall.shape}")
    whole = stored_flat(overall)

    def overall_scale(start: int, stop: int) -> FloatArray:
        """-> float32 (n, 1)"""
        scale = whole(0, overall.parameters)
        of_row = np.arange(start, stop) // packed.matrix_rows if overall.parameters > 1 else np.zeros(stop - start, int)
        return (1 / scale if inverted else scale)[of_row, None].astype(np.float32)

    def read(start: int, stop: int) -> FloatArray:
        values = E2M1[halves(stored(packed).stored(start, stop))].reshape(stop - start, width // GROUP, GROUP)
        values *= numbers(scales, start, stop)[:, :, None]
        return values.reshape(stop - start, width)

    def blocks(start: int, stop: int) -> ByteArray:
        """GGML has the scales of four groups, then their numbers: i of a group in the low half of byte i, 8 + i in the
        high half"""
        of_groups = stored(scales).stored(start, stop).view(np.uint8).reshape(stop - start, -1, GROUPS_IN_BLOCK)
        if (of_groups >= 0x7F).any():
            row = start + int(np.argwhere(of_groups >= 0x7F)[0, 0])
            raise module.error(
                f"has a scale in row {row} of {scales.name!r} that is negative or no number, which NVFP4 in a GGUF "
                "cannot hold; choose another level (--to Q4_K_M)"
            )
        codes = halves(stored(packed).stored(start, stop)).reshape(stop - start, -1, GROUPS_IN_BLOCK, 2, GROUP // 2)
        nibbles = (codes[..., 0, :] | codes[..., 1, :] << 4).reshape(*of_groups.shape[:-1], -1)
        return np.concatenate([of_groups, nibbles], axis=2).reshape(stop - start, -1)

    def format() -> str | None:
        return "NVFP4" if width % (GROUP * GROUPS_IN_BLOCK) == 0 else None

    weights = module.tensor((*lead, width), SameRows(read, format, blocks))
    return multiplied_by(weights, overall_scale)
