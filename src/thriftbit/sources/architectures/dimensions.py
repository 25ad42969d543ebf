"""The numbers that shape a model.

They are read from GGUF metadata alone. A checkpoint's configuration is first turned into metadata, so that mapping a
checkpoint to a container and back again rests on the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thriftbit.containers.gguf_values import Metadata
from thriftbit.errors import ThriftbitError


@dataclass(frozen=True)
class Dimensions:
    """Counts and lengths, named as tables of tensor shapes name them ("query width" is a shape).

    width: of the residual stream; query, key_value: rows of the projections of all heads; qkv: of the three together;
    gate_up: of a gate and an up projection fused; rotary: rotated entries of each head, half as many frequencies.
    """

    layers: int
    width: int
    vocabulary: int
    context: int
    heads: int
    key_value_heads: int
    head: int
    ffn: int
    experts: int
    expert_ffn: int
    rotary: int

    @property
    def query(self) -> int:
        return self.heads * self.head

    @property
    def key_value(self) -> int:
        return self.key_value_heads * self.head

    @property
    def qkv(self) -> int:
        return self.query + 2 * self.key_value

    @property
    def gate_up(self) -> int:
        return 2 * self.ffn

    def shape(self, names: str) -> tuple[int, ...]:
        """ "query width" -> (heads * head, width)"""
        return tuple(getattr(self, name) for name in names.split())


def dimensions_of(architecture: str, metadata: Metadata) -> Dimensions:
    """architecture: GGUF's name of it; metadata: with all the keys that llama.cpp requires. A key that is missing or
    not a whole number is a ThriftbitError."""

    def number(key: str, default: int | None = None, least: int = 1) -> int:
        value = metadata.get(f"{architecture}.{key}", default)
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ThriftbitError(f"{architecture}.{key} should be a whole number of at least {least}, and is {value}.")
        return int(value)

    width = number("embedding_length")
    heads = number("attention.head_count")
    key_value_heads = number("attention.head_count_kv", heads)
    if heads % key_value_heads:
        raise ThriftbitError(f"{heads} attention heads cannot share {key_value_heads} key-value heads evenly.")
    head = number("attention.key_length", width // heads)
    ffn = number("feed_forward_length")
    tokens = metadata.get("tokenizer.ggml.tokens", [])
    return Dimensions(
        layers=number("block_count"),
        width=width,
        vocabulary=number("vocab_size", len(tokens) if isinstance(tokens, list) else None),
        context=number("context_length"),
        heads=heads,
        key_value_heads=key_value_heads,
        head=head,
        ffn=ffn,
        experts=number("expert_count", 0, least=0),
        expert_ffn=number("expert_feed_forward_length", ffn),
        rotary=number("rope.dimension_count", head),
    )
