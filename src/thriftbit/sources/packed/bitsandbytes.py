"""bitsandbytes: NF4 and FP4, numbers of 4 bits that stand for sixteen values, in groups of the flattened tensor; and
INT8 with a scale for each row ("SCB").

The scales of the groups ("absmax") may themselves be stored in 8 bits, as numbers of a second table. A tensor of bytes
holds the weight's shape and settings as JSON. Source: bitsandbytes/functional.py, QuantState."""

from __future__ import annotations

from typing import Any

import numpy as np

from thriftbit.errors import ThriftbitError, shown
from thriftbit.sources.json_object import parse_json_object
from thriftbit.sources.packed.module import Module, checked_shape, numbers, small_values, stored
from thriftbit.sources.packed.mxfp4 import halves
from thriftbit.sources.packed.scaled import stored_flat
from thriftbit.sources.tensor import FloatArray, Tensor


def unpack_4bit(module: Module) -> Tensor:
    state = _state(module)
    shape = checked_shape(module, state.get("shape"))
    size, block = int(np.prod(shape, dtype=np.int64)), _count(module, state, "blocksize")
    weight = module["weight"]
    if weight.source_dtype != "U8" or weight.parameters != -(-size // 2):
        raise module.error(f"needs {-(-size // 2)} bytes for its shape {shape}, and has {weight.shape}")
    module.expect("quant_map", (16,))
    scales = _scales(module, state, -(-size // block))
    width = shape[-1]

    def read(start: int, stop: int) -> FloatArray:
        first, last = start * width, stop * width
        packed = stored(weight).stored_items(first // 2, -(-last // 2))
        swapped = (packed >> 4 | packed << 4).astype(np.uint8)  # the high half comes first
        codes = halves(swapped)[first % 2 : first % 2 + last - first]
        values: FloatArray = numbers(module["quant_map"])[0][codes]
        of_block = scales(first // block, -(-last // block))
        values *= np.repeat(of_block, block)[first % block : first % block + last - first]
        return values.reshape(stop - start, width)

    return module.tensor(shape, read)


def _scales(module: Module, state: dict[str, Any], blocks: int) -> Any:
    """Return a function from (start, stop) to float32 (stop - start,): the scales of a range of groups."""
    absmax = module["absmax"]
    module.expect("absmax", (blocks,))
    plain = stored_flat(absmax)
    if "nested_blocksize" not in state:
        module.expect("absmax", dtypes=("F32", "F16", "BF16"))
        return plain
    block, offset = _count(module, state, "nested_blocksize"), state.get("nested_offset")
    if isinstance(offset, bool) or not isinstance(offset, int | float):
        raise module.error(f"has the nested_offset {shown(offset)}, which is no number")
    for part in ("nested_absmax", "nested_quant_map"):
        if module.get(part) is None:
            raise module.error(f"has scales in 8 bits and lacks weight.{part}. Download the model again")
    module.expect("absmax", dtypes=("U8",))
    module.expect("nested_absmax", (-(-blocks // block),))
    module.expect("nested_quant_map", (256,))
    nested = stored_flat(module["nested_absmax"])

    def read(start: int, stop: int) -> FloatArray:
        values: FloatArray = numbers(module["nested_quant_map"])[0][stored(absmax).stored_items(start, stop)]
        outer = np.repeat(nested(start // block, -(-stop // block)), block)
        return values * outer[start % block : start % block + stop - start] + np.float32(offset)

    return read


def _state(module: Module) -> dict[str, Any]:
    tensor = module["quant_state"]
    try:
        return parse_json_object(small_values(tensor).tobytes(), repr(tensor.name))
    except ThriftbitError as error:
        raise module.error(f"cannot be read: {error}") from None


def _count(module: Module, state: dict[str, Any], key: str) -> int:
    value = state.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= 1 << 20:
        raise module.error(f"has the {key} {shown(value)}, which is no size of a group")
    return value


def unpack_8bit(module: Module) -> Tensor:
    weight, scale = module["weight"], module["SCB"]
    module.expect("SCB", (weight.rows,))
    scales = stored_flat(scale)
    if (layout := module.get("weight_format")) is not None and small_values(layout).any():
        raise module.error("is not stored row by row (weight_format); load it with bitsandbytes and save it again")

    def read(start: int, stop: int) -> FloatArray:
        values = stored(weight).stored(start, stop).astype(np.float32)
        values *= scales(start, stop)[:, None]
        values *= np.float32(1 / 127)
        return values

    return module.tensor(weight.shape, read)
