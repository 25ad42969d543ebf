"""A whole model in the terms of the container: what `open_model` gives and the quantizer takes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thriftbit.containers.ggml_types import block_of, type_named
from thriftbit.containers.gguf_values import Metadata
from thriftbit.notebook import html_table
from thriftbit.sizes import describe_bytes, describe_count
from thriftbit.sources.identity import identity_of
from thriftbit.sources.tensor import Tensor

if TYPE_CHECKING:
    from thriftbit.sources.checkpoint import Checkpoint


@dataclass(frozen=True, eq=False)
class Conversion:
    """A model folder, and the tensors that llama.cpp's converter made of it, in full precision."""

    checkpoint: Checkpoint
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True)
class Model:
    """architecture: GGUF's `general.architecture`. metadata: every other GGUF key, tokenizer included, file type and
    quantization version excluded (the writer decides them). tensors: under their GGUF names, in the order of the file.
    source: where it came from, for people. quantized_source: whether any weights were quantized below 16 bits already.
    config: config.json, where the source has one. conversion: for a class without a table, else None.
    folder: the source's, with its tokenizer; None for a GGUF.
    """

    architecture: str
    metadata: Metadata
    tensors: tuple[Tensor, ...]
    source: str
    quantized_source: bool = False
    config: Mapping[str, Any] | None = None
    conversion: Conversion | None = None
    folder: Path | None = None

    @cached_property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that identify the weights; reads three rows of every tensor, once.

        SHA-256 over the name and shape of every tensor and the values of its first, middle and last row. Any training
        step changes it, the kind of the source's files does not: a checkpoint and its lossless GGUF agree. It does not
        prove that nobody tampered with a row between."""
        digest = hashlib.sha256()
        for tensor in sorted(self.tensors, key=lambda tensor: tensor.name):
            digest.update(f"{tensor.name} {tensor.shape}\n".encode())
            for row in sorted({0, tensor.rows // 2, tensor.rows - 1}):
                if tensor.undecoded is not None:
                    digest.update(tensor.undecoded(row, row + 1).tobytes())
                else:
                    digest.update(tensor.load(row, row + 1).astype("<f4").tobytes())
        return digest.hexdigest()

    @property
    def parameters(self) -> int:
        return sum(tensor.parameters for tensor in self.tensors)

    @property
    def size_bytes(self) -> int:
        """The bytes of all weights, as the source stores them."""
        return sum(_stored_bytes(tensor) for tensor in self.tensors)

    @cached_property
    def identity(self) -> str:
        """64 hexadecimal digits that identify what the model computes: every weight, and every setting that
        configures the computation; see `identity_of`."""
        return identity_of(self)

    def __repr__(self) -> str:
        return (
            f"Model({self.source!r}, {self.architecture}, {describe_count(self.parameters)} parameters, "
            f"{len(self.tensors)} tensors, {describe_bytes(self.size_bytes)})"
        )

    def _repr_html_(self) -> str:
        rows = [
            ("architecture", self.architecture),
            ("parameters", describe_count(self.parameters)),
            ("size", describe_bytes(self.size_bytes)),
            ("tensors", len(self.tensors)),
            ("stored as", ", ".join(sorted({tensor.source_dtype for tensor in self.tensors}))),
        ]
        return html_table(self.source, (), rows)


def _stored_bytes(tensor: Tensor) -> int:
    if tensor.is_packed:
        return round(tensor.parameters * tensor.packed_bits / 8)
    block_size, block_bytes = block_of(type_named(tensor.source_dtype))
    return -(-tensor.parameters // block_size) * block_bytes
