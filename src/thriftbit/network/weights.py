"""A model's weights under the names that transformers' code has for them, read when asked for.

A folder and a GGUF come the same way: as a `Model` in the container's terms, and back from there through the
architecture's tables. Families with experts hold them in one tensor for all in transformers' code and apart in the
checkpoints; `FUSED` is the one place that knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from thriftbit.errors import ThriftbitError
from thriftbit.sources.architectures import architecture_from_gguf
from thriftbit.sources.architectures.architecture import EMBEDDING, OUTPUT
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import Tensor

# The last part of a fused parameter's name -> the checkpoints' names of its parts, in the order of joining
FUSED = {"gate_up_proj": (("gate_proj", "w1"), ("up_proj", "w3")), "down_proj": (("down_proj", "w2"),)}
RENAMED = {".block_sparse_moe.": ".mlp."}
EXPERT = re.compile(r"(?P<prefix>.*\.experts\.)(?P<number>\d+)\.(?P<part>\w+)\.weight")


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
        self._tensors: dict[str, Tensor] = {}
        self._experts: dict[str, dict[int, Tensor]] = {}  # prefix and part -> the experts' tensors
        for tensor in architecture.unmap_tensors(model.tensors, model.metadata):
            self._add(tensor)

    def load(self, names: Iterable[str], prefix: str = "") -> dict[str, torch.Tensor]:
        """names: of parameters, without the prefix. -> float32 tensors, as transformers shapes them"""
        return {name: self._load(prefix + name) for name in names}

    def embeddings(self, tokens: Iterable[int]) -> torch.Tensor:
        """-> float32 (tokens, width): their rows of the embedding"""
        return torch.from_numpy(np.concatenate([self.embedding.load(token, token + 1) for token in tokens]))

    def outputs(self, start: int, stop: int) -> torch.Tensor:
        """-> float32 (stop - start, width): a range of rows of the output matrix"""
        return torch.from_numpy(self.output.load(start, stop))

    def experts(self, name: str) -> list[Mapping[int, Tensor]]:
        """name: of a parameter that joins the experts of a layer. -> the matrices that it joins for each expert, in the
        order of joining, by the experts' numbers; none for any other parameter"""
        prefix, _, last = name.rpartition(".")
        return [self._experts_named(prefix, names) for names in FUSED.get(last, ())]

    def _add(self, tensor: Tensor) -> None:
        name = tensor.name
        for old, new in RENAMED.items():
            name = name.replace(old, new)
        if expert := EXPERT.fullmatch(name):
            self._experts.setdefault(expert["prefix"] + expert["part"], {})[int(expert["number"])] = tensor
        else:
            self._tensors[name] = tensor

    def _load(self, name: str) -> torch.Tensor:
        if name in self._tensors:
            return _read(self._tensors[name])
        parts = self.experts(name)
        if not parts:
            raise ThriftbitError(f"{self.source}: has no tensor for {name}, which the model computes with")
        experts = (torch.cat([_read(part[number]) for part in parts]) for number in sorted(parts[0]))
        return torch.stack(list(experts))

    def _experts_named(self, prefix: str, names: Sequence[str]) -> Mapping[int, Tensor]:
        for name in names:
            if found := self._experts.get(f"{prefix}.{name}"):
                return found
        raise ThriftbitError(f"{self.source}: has no experts' tensors for {prefix}.{names[0]}")


def _read(tensor: Tensor) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(tensor.load()).reshape(tensor.shape))
