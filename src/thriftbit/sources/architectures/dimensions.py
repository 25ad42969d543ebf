"""The numbers that shape a model.

They are read from GGUF metadata alone. A checkpoint's configuration is first turned into metadata, so that mapping a
checkpoint to a container and back again rests on the same numbers. A number may differ from layer to layer; then the
metadata holds a list, and `Dimensions.at(layer)` is the model as that layer sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from thriftbit.containers.gguf_values import Metadata
from thriftbit.errors import ThriftbitError, shown

MOST_LAYERS = 1024  # more than any model has


@dataclass(frozen=True)
class Dimensions:
    """Counts and lengths, by the words that tables use for shapes ("query width" is a shape).

    architecture: GGUF's name. metadata: with all keys that llama.cpp requires. lengths: words that the family adds, or
    gives another meaning. layer: the layer whose numbers are given, None for the model as a whole."""

    architecture: str
    metadata: Metadata
    lengths: Mapping[str, Length] = field(default_factory=dict)
    layer: int | None = None

    def at(self, layer: int) -> Dimensions:
        return replace(self, layer=layer)

    def has(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self.metadata

    def number(self, key: str, default: int | None = None, least: int = 1) -> int:
        """Return the key's whole number: of a list the entry of this layer, or for the model as a whole the largest.
        Raises ThriftbitError if the key is missing and has no default, or is no whole number of at least `least`."""
        value: Any = self.metadata.get(f"{self.architecture}.{key}", default)
        if isinstance(value, np.ndarray) and value.ndim == 1 and value.size:
            value = value.max() if self.layer is None else value[min(self.layer, value.size - 1)]
        if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer) or value < least:
            raise ThriftbitError(
                f"{self.architecture}.{key} should be a whole number of at least {least}, and is {shown(value)}."
            )
        return int(value)

    def flag(self, key: str) -> bool:
        """Return the flag: of a list the entry of this layer, False if the key is missing."""
        value: Any = self.metadata.get(f"{self.architecture}.{key}", False)
        if isinstance(value, np.ndarray):
            index = self.layer or 0
            value = value[index] if index < value.size else False
        return bool(value)

    @property
    def all_layers(self) -> int:
        """The number of layers, those included that guess the tokens after the next (MTP)."""
        layers = self.number("block_count", least=0)
        if not layers > 0:
            raise ThriftbitError(f"{self.architecture}.block_count is {layers}; models have 1 to {MOST_LAYERS} layers.")
        return layers

    @property
    def layers(self) -> int:
        """The number of layers without those that guess the tokens after the next (MTP)."""
        return self.all_layers - self.next_token_layers

    @property
    def next_token_layers(self) -> int:
        return self.number("nextn_predict_layers", 0, least=0)

    @property
    def width(self) -> int:
        """The width of the residual stream."""
        return self.number("embedding_length")

    @property
    def vocabulary(self) -> int:
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        return self.number("vocab_size", len(tokens) if isinstance(tokens, list) else None)

    @property
    def context(self) -> int:
        return self.number("context_length")

    @property
    def heads(self) -> int:
        return self.number("attention.head_count")

    @property
    def key_value_heads(self) -> int:
        return self.number("attention.head_count_kv", self.heads)

    @property
    def head(self) -> int:
        return self.number("attention.key_length", self.width // max(1, self.number("attention.head_count", 1)))

    @property
    def query(self) -> int:
        """The rows of the query projection of all heads."""
        return self.heads * self.head

    @property
    def key_value(self) -> int:
        return self.key_value_heads * self.head

    @property
    def qkv(self) -> int:
        """The rows of query, key and value in one matrix."""
        return self.query + 2 * self.key_value

    @property
    def ffn(self) -> int:
        return self.number("feed_forward_length")

    @property
    def gate_up(self) -> int:
        """The rows of a gate and an up projection in one matrix."""
        return 2 * self.ffn

    @property
    def experts(self) -> int:
        return self.number("expert_count", 0, least=0)

    @property
    def expert_ffn(self) -> int:
        return (
            self.number("expert_feed_forward_length") if self.has("expert_feed_forward_length") else self.length("ffn")
        )

    @property
    def expert_gate_up(self) -> int:
        return 2 * self.length("expert_ffn")

    @property
    def rotary(self) -> int:
        """The rotated entries of each head, twice the number of frequencies."""
        return self.number("rope.dimension_count", self.head)

    def length(self, word: str) -> int:
        """Return the length that a word of a shape stands for: the family's own meaning, one of the above, or a
        number."""
        if word in self.lengths:
            return self.lengths[word](self)
        return int(word) if word.isdecimal() else int(getattr(self, word))

    def shape(self, words: str) -> tuple[int, ...]:
        """ "query width" -> (heads * head, width). A length of zero is a ThriftbitError: no tensor is empty."""
        lengths = {word: self.length(word) for word in words.split()}
        if empty := [word for word, length in lengths.items() if length < 1]:
            raise ThriftbitError(
                f"{self.architecture}: by its settings it has {' and '.join(empty)} of 0, so a tensor would be empty."
            )
        return tuple(lengths[word] for word in words.split())


Length = Callable[[Dimensions], int]


def dimensions_of(architecture: str, metadata: Metadata, lengths: Mapping[str, Length] | None = None) -> Dimensions:
    """Return the model's numbers. Raises ThriftbitError for a key that is missing or not a whole number."""
    model = Dimensions(architecture, metadata, lengths or {})
    for number in ("all_layers", "width", "vocabulary", "context", "experts"):
        getattr(model, number)
    if model.layers < 1:
        raise ThriftbitError(f"{architecture}: of {model.all_layers} layers {model.next_token_layers} guess ahead.")
    if model.has("attention.head_count"):
        most = 1 if model.all_layers > MOST_LAYERS else model.all_layers  # the tensors reveal a forged count
        for layer in range(most):
            _check_heads(model.at(layer))
    return model


def _check_heads(model: Dimensions) -> None:
    listed = isinstance(model.metadata.get(f"{model.architecture}.attention.head_count_kv"), np.ndarray)
    least = 0 if listed else 1  # layers that do not attend have none
    heads = model.number("attention.head_count", least=least)
    shared = model.number("attention.head_count_kv", heads, least=least)
    if shared and heads % shared:
        raise ThriftbitError(f"{heads} attention heads cannot share {shared} key-value heads evenly.")
