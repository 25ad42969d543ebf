"""MXFP4: numbers of 4 bits (E2M1) in groups of 32, each group with a power of two as its scale.

gpt-oss stores `NAME_blocks` (..., rows, groups, 16) and `NAME_scales` (..., rows, groups); compressed-tensors stores
`weight_packed` (rows, width / 2) and `weight_scale`. Both have the weight of an even column in the low half of a byte.
GGML's MXFP4 holds the same numbers in another order. Source: OCP Microscaling Formats 1.0; transformers'
integrations/mxfp4.py.

transformers keeps the experts of gpt-oss transposed, (experts, inputs, outputs), so they are given back in that shape.
Transposing them once more costs nothing (`views.transposed`)."""

from __future__ import annotations

import numpy as np

from thriftbit.sources.packed.bits import E2M1, SMALL_FLOATS, Codes
from thriftbit.sources.packed.module import Module, stored
from thriftbit.sources.tensor import ByteArray, FloatArray, SameRows, Tensor
from thriftbit.sources.views import transposed

GROUP = 32


def unpack_experts(module: Module) -> Tensor:
    """Return the joined experts of gpt-oss."""
    blocks, scales = module["blocks"], module["scales"]
    if len(blocks.shape) < 3:
        raise module.error(f"needs {blocks.name!r} of shape (..., rows, groups, 16), and its shape is {blocks.shape}")
    rows, groups = blocks.shape[:-2], blocks.shape[-2]
    module.expect("blocks", (*rows, groups, GROUP // 2), dtypes=("U8",))
    module.expect("scales", (*rows, groups), dtypes=("U8", "F8_E8M0"))
    return transposed(_tensor(module, (*rows, groups * GROUP), blocks, scales, groups))


def unpack_linear(module: Module) -> Tensor:
    """Return a weight of compressed-tensors' mxfp4-pack-quantized."""
    weight, scales = module["weight_packed"], module["weight_scale"]
    width = weight.width * 2
    module.expect("weight_packed", dtypes=("U8",))
    module.expect("weight_scale", (*weight.shape[:-1], width // GROUP), dtypes=("U8", "F8_E8M0"))
    if width % GROUP:
        raise module.error(f"has rows of {width} weights, which groups of {GROUP} do not divide")
    return _tensor(module, (*weight.shape[:-1], width), weight, scales, 1)


def unpack_beside_fp8(module: Module) -> Tensor:
    """Return an expert of DeepSeek V4, whose FP8 checkpoint stores experts with two numbers in each byte."""
    weight, scales = module["weight"], module["scale"]
    width = weight.width * 2
    module.expect("scale", (*weight.shape[:-1], width // GROUP), dtypes=("U8", "F8_E8M0"))
    if width % GROUP:
        raise module.error(f"has rows of {width} weights, which groups of {GROUP} do not divide")
    return _tensor(module, (*weight.shape[:-1], width), weight, scales, 1)


def _tensor(module: Module, shape: tuple[int, ...], packed: Tensor, scales: Tensor, stored_rows: int) -> Tensor:
    """stored_rows: how many rows of `packed` hold one row of the weight."""
    groups = shape[-1] // GROUP

    def bytes_of(start: int, stop: int) -> tuple[ByteArray, ByteArray]:
        """Return the scales (n, groups) and the numbers (n, groups, 16), as stored."""
        exponents = stored(scales).stored(start, stop)
        if (exponents == 255).any():
            row = start + int(np.argwhere(exponents == 255)[0, 0])
            raise module.error(f"has a scale that is no number in row {row} of {scales.name!r}; the file is damaged")
        numbers = stored(packed).stored(start * stored_rows, stop * stored_rows).view(np.uint8)
        return exponents, numbers.reshape(stop - start, groups, GROUP // 2)

    def read(start: int, stop: int) -> FloatArray:
        exponents, numbers = bytes_of(start, stop)
        values = E2M1[halves(numbers)]
        values *= SMALL_FLOATS["F8_E8M0"][exponents][:, :, None]
        return values.reshape(stop - start, shape[-1])

    def blocks(start: int, stop: int) -> ByteArray:
        """Return the rows in GGML's MXFP4, which has number i in the low half of byte i, and number 16 + i in the high
        half."""
        exponents, numbers = bytes_of(start, stop)
        codes = halves(numbers)
        nibbles = codes[:, :, :16] | codes[:, :, 16:] << 4
        return np.concatenate([exponents[:, :, None], nibbles], axis=2).reshape(stop - start, groups * 17)

    return module.tensor(shape, SameRows(read, lambda: "MXFP4", blocks), "MXFP4")


def halves(packed: ByteArray) -> Codes:
    """Unpack uint8 (..., n) into uint8 (..., 2 n): of every byte the low half, then the high half."""
    both: Codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], 2 * packed.shape[-1])
    return both
