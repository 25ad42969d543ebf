"""What llama.cpp keeps of a text, layer by layer, while it writes.

Every kind of layer has its own formula. Attention keeps a key and a value for each key-value head and token. A sliding
window keeps at most the tokens of the window and one batch. Latent attention keeps one short vector for all heads.
Recurrent layers and short convolutions keep a state of fixed size. The formulas here read the keys that llama.cpp
reads; `kinds.py` joins them to the rows of a layer.

Sources: llama.cpp, src/llama-hparams.cpp, llama-kv-cache.cpp, llama-kv-cache-iswa.cpp, llama-memory-recurrent.cpp;
tests/conformance/test_memory.py holds them to what that allocates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from thriftbit.containers.gguf_values import padded
from thriftbit.formats import format_named
from thriftbit.sources.architectures.dimensions import Dimensions

CELL_PADDING = 256  # tokens; the size of caches is a multiple of it
BATCH_TOKENS = 512  # llama.cpp's default for one pass
_STATE_NUMBER_BYTES = 4


@dataclass(frozen=True)
class LayerCache:
    """What one layer keeps. key_width, value_width: numbers for each token. window_tokens: how far attention looks
    back, 0 for the whole text. state_numbers: 32-bit numbers that do not depend on the length of the text."""

    key_width: int = 0
    value_width: int = 0
    window_tokens: int = 0
    state_numbers: int = 0

    def cells(self, context_tokens: int, batch_tokens: int = BATCH_TOKENS) -> int:
        """Return the number of tokens that there is room for."""
        room = padded(context_tokens, CELL_PADDING)
        if not self.window_tokens:
            return room
        return min(room, padded(self.window_tokens + batch_tokens, CELL_PADDING))

    def size_bytes(self, context_tokens: int, key_type: str = "F16", value_type: str = "F16") -> int:
        cells = self.cells(context_tokens)
        keys = cells * _row_bytes(key_type, self.key_width)
        return keys + cells * _row_bytes(value_type, self.value_width) + _STATE_NUMBER_BYTES * self.state_numbers

    def read_bytes(self, filled_tokens: float, key_type: str = "F16", value_type: str = "F16") -> float:
        """Return the bytes of the cache that are read to write one more token, after `filled_tokens`."""
        seen = min(filled_tokens, self.window_tokens) if self.window_tokens else filled_tokens
        row_bytes = _row_bytes(key_type, self.key_width) + _row_bytes(value_type, self.value_width)
        return seen * row_bytes + 2 * _STATE_NUMBER_BYTES * self.state_numbers


# Gives what a layer keeps from the model's numbers at that layer
Keeps = Callable[[Dimensions], LayerCache]


def attention_cache(model: Dimensions) -> LayerCache:
    heads = model.number("attention.head_count_kv", model.number("attention.head_count", 1), least=0)
    return LayerCache(heads * model.head, heads * model.number("attention.value_length", model.head))


def latent_cache(model: Dimensions) -> LayerCache:
    """Return the cache of latent attention. Values are a part of the vector that is kept as keys, so they take
    nothing."""
    latent = model.number("attention.kv_lora_rank")
    return LayerCache(latent + model.number("rope.dimension_count", 0, least=0))


def windowed(keeps: Keeps, key: str = "attention.sliding_window", default_tokens: int = 0) -> Keeps:
    """Return what a layer keeps whose attention looks back as many tokens as the key says; 0 stands for the whole
    text."""

    def windowed_cache(model: Dimensions) -> LayerCache:
        cache = keeps(model)
        tokens = model.number(key, default_tokens, least=0)
        return LayerCache(cache.key_width, cache.value_width, tokens, cache.state_numbers)

    return windowed_cache


def state_space_cache(model: Dimensions) -> LayerCache:
    """Return what Mamba, Mamba-2 and gated delta nets keep: the inputs of the convolution, and the state itself."""
    inner, state = model.number("ssm.inner_size", 0, least=0), model.number("ssm.state_size", 0, least=0)
    convolved = inner + 2 * model.number("ssm.group_count", 0, least=0) * state
    past = max(0, model.number("ssm.conv_kernel", 0, least=0) - 1)
    return LayerCache(state_numbers=past * convolved + state * inner)


def short_convolution_cache(model: Dimensions) -> LayerCache:
    return LayerCache(state_numbers=model.width * (model.number("shortconv.l_cache") - 1))


def kimi_delta_cache(model: Dimensions) -> LayerCache:
    head = model.number("kda.head_dim")
    inner = model.number("attention.head_count") * head
    past = max(0, model.number("ssm.conv_kernel", 1) - 1)
    return LayerCache(state_numbers=3 * past * inner + head * inner)


def rwkv_cache(model: Dimensions) -> LayerCache:
    shifts = model.number("token_shift_count", 2)
    return LayerCache(state_numbers=shifts * model.width + model.width * model.number("wkv.head_size"))


def both(*keeps: Keeps) -> Keeps:
    """Return what a layer keeps that has several states: the sum of them."""

    def sum_of_caches(model: Dimensions) -> LayerCache:
        caches = [each(model) for each in keeps]
        return LayerCache(
            sum(cache.key_width for cache in caches),
            sum(cache.value_width for cache in caches),
            max((cache.window_tokens for cache in caches), default=0),
            sum(cache.state_numbers for cache in caches),
        )

    return sum_of_caches


def _row_bytes(type_name: str, width: int) -> int:
    return format_named(type_name).row_bytes(width) if width else 0
