"""A model's weights under the names that transformers' code has for them, read when asked for.

Folders and GGUF files are treated alike: both are a `Model` in the container's terms, and the family's table leads back
to transformers' names. Without a table, parameters are matched by content (`matched.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from thriftbit.errors import ThriftbitError
from thriftbit.network.matched import Matched, match
from thriftbit.sources.architectures import architecture_from_gguf
from thriftbit.sources.architectures.rows import EMBEDDING, OUTPUT
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import Tensor


class Weights:
    """model: from `open_model`. embedding, output: the matrices before the first layer and after the last.

    original: the model that this one is a quantized version of, if it is one. Without a table it is needed to match
    parameters. Raises ThriftbitError for an architecture without a table if the original's folder is missing, too."""

    def __init__(self, model: Model, original: Model | None = None) -> None:
        self.source = model.source
        by_container_name = {tensor.name: tensor for tensor in model.tensors}
        self.embedding = by_container_name[EMBEDDING]
        self.output = by_container_name.get(OUTPUT, self.embedding)  # without an output matrix, the two are tied
        self._matched, self._container = _matched(model, original), _in_order(model, original)
        self._tensors: dict[str, Tensor] = {}
        if self._matched is None:
            architecture = architecture_from_gguf(model.architecture, model.metadata)
            found = architecture.unmap_tensors(model.tensors, model.metadata)
            self._tensors = {tensor.name: tensor for tensor in found}

    def load(self, names: Iterable[str], prefix: str = "") -> dict[str, torch.Tensor]:
        """Return float32 tensors in transformers' shapes. names: of parameters, without the prefix."""
        return {name: self._load(prefix + name) for name in names}

    def rows(self, name: str, tokens: Iterable[int]) -> torch.Tensor:
        """Return float32 (tokens, width): the rows of these tokens. name: of a table with a row for every token."""
        if self._matched is not None:
            return self._matched.rows(name, list(tokens), self._container)
        table = self._tensors.get(name, self.embedding)
        return torch.from_numpy(np.concatenate([table.load(token, token + 1) for token in tokens]))

    def outputs(self, start: int, stop: int) -> torch.Tensor:
        """Return float32 (stop - start, width): a range of rows of the output matrix."""
        return torch.from_numpy(self.output.load(start, stop))

    def _load(self, name: str) -> torch.Tensor:
        if self._matched is not None:
            return self._matched.load(name, self._container)
        if name not in self._tensors:
            raise ThriftbitError(f"{self.source}: has no tensor for {name}, which the model computes with")
        return _read(self._tensors[name])


def _matched(model: Model, original: Model | None) -> Matched | None:
    """Return the match by content; None if the family has a table."""
    source = original if original is not None and original.conversion is not None else model
    return match(source) if source.conversion is not None else None


def _in_order(model: Model, original: Model | None) -> Sequence[Tensor]:
    """Return the model's tensors, in the order of the original's."""
    if original is None or original.conversion is None:
        return model.tensors
    by_name = {tensor.name: tensor for tensor in model.tensors}
    for tensor in original.tensors:
        if tensor.name not in by_name or by_name[tensor.name].shape != tensor.shape:
            raise ThriftbitError(
                f"{model.source}: {tensor.name} is missing or of another shape than llama.cpp's converter "
                f"gives it, so it cannot be compared with {original.source}"
            )
    return [by_name[tensor.name] for tensor in original.tensors]


def _read(tensor: Tensor) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(tensor.load()).reshape(tensor.shape))
