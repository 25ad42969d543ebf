"""A whole model in the terms of the container: what `open_model` gives and the quantizer takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gguf import GGMLQuantizationType

from thriftbit.containers.gguf_values import Metadata
from thriftbit.formats import format_for
from thriftbit.sources.tensor import Tensor


@dataclass(frozen=True)
class Model:
    """architecture: GGUF's `general.architecture`. metadata: every other GGUF key, tokenizer included, file type and
    quantization version excluded (the writer's business). tensors: under their GGUF names, in the order to be written.
    source: where it came from, for people. quantized_source: whether any weights were quantized below 16 bits already.
    config: config.json, where the source has one.
    """

    architecture: str
    metadata: Metadata
    tensors: tuple[Tensor, ...]
    source: str
    quantized_source: bool = False
    config: Mapping[str, Any] | None = None

    @property
    def parameters(self) -> int:
        return sum(tensor.parameters for tensor in self.tensors)

    @property
    def size_bytes(self) -> int:
        """-> bytes of all weights, as the source stores them"""
        bits = (t.parameters * format_for(GGMLQuantizationType[t.source_dtype]).bits_per_weight for t in self.tensors)
        return round(sum(bits) / 8)
