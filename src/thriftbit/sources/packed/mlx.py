"""MLX: whole numbers of 2 to 8 bits in groups of 32, 64 or 128 columns, each with a scale and an offset ("bias").

Source: MLX's mx.quantize and mx.dequantize. mlx-lm stacks a layer's experts as `switch_mlp`; they are given back under
the names that every other checkpoint has, one by one.
"""

from __future__ import annotations

from thriftbit.sources.packed.bits import Codes, unpack_bits, words_of
from thriftbit.sources.packed.groups import Groups
from thriftbit.sources.packed.module import Module, numbers, stored
from thriftbit.sources.tensor import FloatArray, Tensor

BITS = (2, 3, 4, 5, 6, 8)


def unpack(module: Module) -> Tensor:
    mode = module.settings.get("mode", "affine")
    if mode != "affine":
        raise module.error(f"is in MLX's mode {mode!r}; what is read is 'affine'")
    weight, scales, offsets = module["weight"], module["scales"], module["biases"]
    bits, group = module.whole("bits", choices=BITS), module.whole("group_size", choices=(16, 32, 64, 128))
    width = scales.width * group
    lead = weight.shape[:-1]
    module.expect("weight", (*lead, words_of(bits, width)), dtypes=("U32",))
    module.expect("scales", (*lead, scales.width))
    module.expect("biases", scales.shape)

    def read_codes(start: int, stop: int) -> Codes:
        return unpack_bits(stored(weight).stored(start, stop), bits, width)

    def read_scales(start: int, stop: int) -> FloatArray:
        return numbers(scales, start, stop)

    def read_offsets(start: int, stop: int) -> FloatArray:
        return numbers(offsets, start, stop)

    grouped = Groups(weight.rows, width, group, bits, read_codes, read_scales, offsets=read_offsets)
    return module.tensor((*lead, width), grouped.reader())
