"""A whole model in the terms of the container: what `open_model` gives and the quantizer takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from thriftbit.formats import format_for
from thriftbit.sources.tensor import Tensor

# GGUF metadata is typed, so values carry their type: np.uint32(4), np.float32(1e-5), True, "text", an array of numbers
# as a 1-D numpy array of the exact dtype, an array of strings as a list.
MetadataValue = str | bool | np.generic | NDArray[np.generic] | list[str]
Metadata = Mapping[str, MetadataValue]


@dataclass(frozen=True)
class Model:
    """architecture: GGUF's `general.architecture`; metadata: every other GGUF key, tokenizer included, file type and
    quantization version excluded (the writer's business); tensors: under their GGUF names, in the order to be written;
    source: where it came from, for people; quantized_source: True if any weights were already quantized below 16 bits."""

    architecture: str
    metadata: Metadata
    tensors: tuple[Tensor, ...]
    source: str
    quantized_source: bool = False

    @property
    def parameters(self) -> int:
        return sum(tensor.parameters for tensor in self.tensors)

    @property
    def size_bytes(self) -> int:
        """-> bytes of all weights, as the source stores them"""
        bits = (t.parameters * format_for(GGMLQuantizationType[t.source_dtype]).bits_per_weight for t in self.tensors)
        return round(sum(bits) / 8)
