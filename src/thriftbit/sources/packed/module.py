"""The stored tensors that one packed weight is made of, and how they are read and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thriftbit.errors import ThriftbitError, shown
from thriftbit.sources.packed.bits import SMALL_FLOATS
from thriftbit.sources.safetensors_file import DTYPE_BITS, READABLE, StoredRows
from thriftbit.sources.tensor import FloatArray, Tensor

SMALL_BYTES = 8 << 20  # more than any description of a tensor takes
MOST_WEIGHTS = 1 << 40  # in one tensor; a shape that claims more is forged


@dataclass(frozen=True)
class Module:
    """One packed weight, and the settings that apply to it.

    name: of the unpacked weight. parts: its stored tensors, by the words of its scheme.
    settings: the configuration's, for this module."""

    name: str
    parts: Mapping[str, Tensor]
    settings: Mapping[str, Any]

    def __getitem__(self, part: str) -> Tensor:
        return self.parts[part]

    def get(self, part: str) -> Tensor | None:
        return self.parts.get(part)

    def error(self, what: str) -> ThriftbitError:
        return ThriftbitError(f"the packed weight {self.name!r} {what}")

    def expect(self, part: str, *shapes: tuple[int, ...], dtypes: tuple[str, ...] = ()) -> None:
        """Raise ThriftbitError unless the stored tensor has one of these shapes, and one of these dtypes if any is
        given."""
        tensor = self[part]
        if shapes and tensor.shape not in shapes:
            wanted = " or ".join(dict.fromkeys(map(str, shapes)))
            raise self.error(
                f"needs {tensor.name!r} of shape {wanted}, and its shape is {tensor.shape}: the files do not belong "
                "together, or config.json is of another model. Download the model again"
            )
        if dtypes and tensor.source_dtype not in dtypes:
            raise self.error(
                f"needs {tensor.name!r} as {' or '.join(dtypes)}, and it is stored as {tensor.source_dtype}"
            )

    def whole(self, key: str, otherwise: int | None = None, choices: tuple[int, ...] = ()) -> int:
        """Return the setting, a positive whole number. Raises ThriftbitError, which names the setting, if it is not one
        of `choices` or no such number. otherwise: the value if the setting is missing; None raises ThriftbitError."""
        value = self.settings.get(key, otherwise)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.error(f"needs {key} in the quantization settings, a whole number, and it is {shown(value)}")
        if choices and value not in choices:
            raise self.error(f"has {key} {value}; what is read is {', '.join(map(str, choices))}")
        return value

    def tensor(self, shape: tuple[int, ...], read: Any, source_dtype: str = "F32") -> Tensor:
        """Return the unpacked weight. source_dtype: the smallest type that holds it exactly. A product with a scale
        needs F32."""
        stored_bits = sum(part.parameters * DTYPE_BITS[part.source_dtype] for part in self.parts.values())
        return Tensor(self.name, shape, source_dtype, read, packed_bits=stored_bits / math.prod(shape))


def stored(tensor: Tensor) -> StoredRows:
    """Return the reader of the tensor's stored numbers. Raises WeightsElsewhereError if the weights are not here."""
    if not isinstance(tensor.read, StoredRows):
        tensor.load(0, 1)
        raise TypeError(f"{tensor.name} is no tensor of a file")
    return tensor.read


def numbers(tensor: Tensor, start: int = 0, stop: int | None = None) -> FloatArray:
    """Return float32 (stop - start, width): rows of scales of any dtype."""
    return as_float32(tensor, stored(tensor).stored(start, tensor.rows if stop is None else stop))


def as_float32(tensor: Tensor, values: NDArray[Any]) -> FloatArray:
    """Return the numbers that stored values stand for. Bytes without a type are powers of two (E8M0)."""
    if tensor.source_dtype == "U8":
        powers: FloatArray = SMALL_FLOATS["F8_E8M0"][values]
        return powers
    if tensor.source_dtype in SMALL_FLOATS:
        small: FloatArray = SMALL_FLOATS[tensor.source_dtype][values]
        return small
    if tensor.source_dtype in READABLE:
        return READABLE[tensor.source_dtype](values)
    return values.astype(np.float32)


def small_values(tensor: Tensor) -> NDArray[Any]:
    """Return all values of a tensor that only describes another. Raises ThriftbitError if it is too large for that."""
    if tensor.parameters * 8 > SMALL_BYTES:
        raise ThriftbitError(f"{tensor.name!r} has the shape {tensor.shape}, too large for what it should describe")
    return stored(tensor).stored(0, tensor.rows).reshape(-1)


def checked_shape(module: Module, shape: Any, rank: int | None = None) -> tuple[int, ...]:
    """Return a stranger's shape as whole numbers. Raises ThriftbitError if no weight can have that shape."""
    sizes = tuple(int(size) for size in shape) if isinstance(shape, list | tuple | np.ndarray) else ()
    count = 1
    for size in sizes:
        count = count * size if 0 < size <= MOST_WEIGHTS else 0
        if not 0 < count <= MOST_WEIGHTS:
            raise module.error(f"is said to have the shape {shown(shape)}, which no weight has")
    if not sizes or (rank is not None and len(sizes) != rank):
        raise module.error(f"is said to have the shape {shown(shape)}, which no weight has")
    return sizes
