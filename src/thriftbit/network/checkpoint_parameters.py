"""The parameters that transformers computes with, read from a checkpoint one by one.

Checkpoints store some parameters under other names or in other shapes than transformers' code has them: experts one by
one, joined matrices, prefixes of a model around the text model. transformers has rules for this conversion and applies
them when it loads a whole model. Here its rules are applied to one parameter at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

from thriftbit.errors import ThriftbitError
from thriftbit.sources.tensor import Tensor

_AROUND = "language_model."  # the text model's prefix in a checkpoint that has other models beside it


class CheckpointParameters:
    """model: transformers' code, without weights. tensors: of the checkpoint, by its names. source: the model's name in
    errors."""

    def __init__(self, model: PreTrainedModel, tensors: Mapping[str, Tensor], source: str) -> None:
        self._model, self._tensors, self._source = model, tensors, source
        rules = get_model_conversion_mapping(model)
        self._renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
        self._converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
        self._by_pattern = {pattern: rule for rule in self._converters for pattern in rule.source_patterns}
        self._names = model.state_dict()
        self._origins: dict[str, list[tuple[str, str | None]]] = {}  # first parameter of a rule -> names, patterns
        self._first: dict[str, str] = {}  # parameter -> first parameter of the rule that gives it
        for name in sorted(tensors, key=dot_natural_key):
            self._add(name)

    @property
    def names(self) -> list[str]:
        """The names of the parameters that the checkpoint has."""
        return list(self._first)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._names[name].shape)

    def load(self, name: str) -> torch.Tensor:
        """Return the parameter as float32, in transformers' shape. Raises ThriftbitError if the checkpoint lacks it."""
        if name not in self._first:
            raise ThriftbitError(f"{self._source}: has no tensor for {name}, which the model computes with")
        first = self._first[name]
        origins = self._origins[first]
        pattern = origins[0][1]
        rule: Any = deepcopy(self._by_pattern[pattern]) if pattern else WeightRenaming(origins[0][0], first)
        for origin, own in origins:
            rule.add_tensor(first, origin, own or origin, _reader(self._tensors[origin]))
        found = rule.convert(first, model=self._model, config=self._model.config)
        value: torch.Tensor = found[name][0] if isinstance(found[name], list) else found[name]
        return value.float()

    def rows(self, name: str, numbers: Sequence[int]) -> torch.Tensor:
        """Return float32 (len(numbers), width): these rows of a matrix that the checkpoint stores as it is."""
        origins = self._origins[self._first[name]]
        if len(origins) > 1 or origins[0][1] is not None:
            return self.load(name)[list(numbers)]
        tensor = self._tensors[origins[0][0]]
        return torch.from_numpy(np.concatenate([tensor.load(number, number + 1) for number in numbers]))

    def _add(self, origin: str) -> None:
        for name in _candidates(origin):
            renamed, pattern = rename_source_key(
                name, self._renamings, self._converters, self._model.base_model_prefix, self._names
            )
            if renamed in self._names:
                break
        else:
            return  # a tensor of another part of the model
        self._origins.setdefault(renamed, []).append((origin, pattern))
        for parameter in self._given_with(renamed, pattern):
            self._first[parameter] = renamed

    def _given_with(self, first: str, pattern: str | None) -> Iterator[str]:
        """Yield all parameters that a rule gives together."""
        if pattern is None:
            yield first
            return
        targets = self._by_pattern[pattern].target_patterns
        yield from (first.replace(targets[0], target) for target in targets)


def _candidates(name: str) -> Iterator[str]:
    yield name
    if _AROUND in name:
        yield name.replace(_AROUND, "", 1)


def _reader(tensor: Tensor) -> Any:
    return lambda: torch.from_numpy(np.ascontiguousarray(tensor.load()).reshape(tensor.shape))
