"""A model's weights under the names that transformers' code has for them, read when asked for.

A folder and a GGUF come the same way: as a `Model` in the container's terms, and back from there through the family's
table.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from thriftbit.errors import ThriftbitError
from thriftbit.sources.architectures import architecture_from_gguf
from thriftbit.sources.architectures.rows import EMBEDDING, OUTPUT
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import Tensor


class Weights:
    """model: from `open_model`. embedding, output: the matrices before the first layer and after the last.

    Raises ThriftbitError for an architecture that has no table.
    """

    def __init__(self, model: Model) -> None:
        self.source = model.source
        by_container_name = {tensor.name: tensor for tensor in model.tensors}
        self.embedding = by_container_name[EMBEDDING]
        self.output = by_container_name.get(OUTPUT, self.embedding)  # where none is given, the two are tied
        architecture = architecture_from_gguf(model.architecture, model.metadata)
        self._tensors = {tensor.name: tensor for tensor in architecture.unmap_tensors(model.tensors, model.metadata)}

    def load(self, names: Iterable[str], prefix: str = "") -> dict[str, torch.Tensor]:
        """names: of parameters, without the prefix. -> float32 tensors, as transformers shapes them"""
        return {name: self._load(prefix + name) for name in names}

    def rows(self, name: str, tokens: Iterable[int]) -> torch.Tensor:
        """name: of a table with a row for every token. -> float32 (tokens, width): their rows"""
        table = self._tensors.get(name, self.embedding)
        return torch.from_numpy(np.concatenate([table.load(token, token + 1) for token in tokens]))

    def outputs(self, start: int, stop: int) -> torch.Tensor:
        """-> float32 (stop - start, width): a range of rows of the output matrix"""
        return torch.from_numpy(self.output.load(start, stop))

    def _load(self, name: str) -> torch.Tensor:
        if name not in self._tensors:
            raise ThriftbitError(f"{self.source}: has no tensor for {name}, which the model computes with")
        return _read(self._tensors[name])


def _read(tensor: Tensor) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(tensor.load()).reshape(tensor.shape))
