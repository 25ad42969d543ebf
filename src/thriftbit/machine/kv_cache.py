"""What llama.cpp keeps of a text while it writes: the memory that grows with the context, and the memory that does not.

Every kind of layer has its own formula. Attention keeps a key and a value for each of its key-value heads and tokens
(grouped heads: fewer of them than query heads). A sliding window keeps no more tokens than the window and one batch.
Latent attention keeps one short vector for all heads. Recurrent layers (Mamba, RWKV, gated delta nets, short
convolutions) keep a state of fixed size, and hybrid models mix the kinds, layer by layer. All of it is read from a
GGUF's metadata: the same keys that llama.cpp reads.

Sources: llama.cpp, src/llama-hparams.cpp, llama-kv-cache.cpp, llama-kv-cache-iswa.cpp, llama-memory-recurrent.cpp, and
the loading of each family in src/llama-model.cpp; tests/conformance/test_memory.py holds it to what that allocates.
Left out: several conversations at a time, and encoders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import gguf
import numpy as np

from thriftbit.containers.gguf_values import Metadata, padded
from thriftbit.errors import ThriftbitError
from thriftbit.formats import format_named

CELL_PADDING = 256  # tokens: what caches are rounded up to
BATCH_TOKENS = 512  # llama.cpp's default for one pass
CACHE_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "IQ4_NL", "Q4_1", "Q4_0")
_STATE_NUMBER_BYTES = 4
_MOST_LAYERS = 1024


@dataclass(frozen=True)
class LayerCache:
    """What one layer keeps. key_width, value_width: numbers for each token. window_tokens: how far it looks back, 0 for
    all of the text. state_numbers: 32-bit numbers, however long the text is."""

    key_width: int = 0
    value_width: int = 0
    window_tokens: int = 0
    state_numbers: int = 0

    def cells(self, context_tokens: int, batch_tokens: int = BATCH_TOKENS) -> int:
        """-> tokens that there is room for"""
        room = padded(context_tokens, CELL_PADDING)
        if not self.window_tokens:
            return room
        return min(room, padded(self.window_tokens + batch_tokens, CELL_PADDING))

    def size_bytes(self, context_tokens: int, key_type: str = "F16", value_type: str = "F16") -> int:
        cells = self.cells(context_tokens)
        keys = cells * _row_bytes(key_type, self.key_width)
        return keys + cells * _row_bytes(value_type, self.value_width) + _STATE_NUMBER_BYTES * self.state_numbers

    def read_bytes(self, filled_tokens: float, key_type: str = "F16", value_type: str = "F16") -> float:
        """-> what is read of it to write one more token, after so many"""
        seen = min(filled_tokens, self.window_tokens) if self.window_tokens else filled_tokens
        row_bytes = _row_bytes(key_type, self.key_width) + _row_bytes(value_type, self.value_width)
        return seen * row_bytes + 2 * _STATE_NUMBER_BYTES * self.state_numbers


def cache_bytes(
    layers: Sequence[LayerCache], context_tokens: int, key_type: str = "F16", value_type: str = "F16"
) -> int:
    """-> of all layers together. Types: of CACHE_TYPES."""
    return sum(layer.size_bytes(context_tokens, key_type, value_type) for layer in layers)


def layer_caches(architecture: str, metadata: Metadata) -> tuple[LayerCache, ...] | None:
    """architecture, metadata: as a GGUF has them. -> one for every layer; None for a family that llama.cpp, as we know
    it, does not run. Raises ThriftbitError for metadata that lacks what every model has."""
    if architecture not in set(gguf.MODEL_ARCH_NAMES.values()):
        return None
    keys = _Keys(architecture, metadata)
    layers = keys.number("block_count")
    if not 0 < layers <= _MOST_LAYERS:
        raise ThriftbitError(f"{architecture}.block_count is {layers}; models have 1 to {_MOST_LAYERS} layers")
    layers -= keys.number("nextn_predict_layers")  # for guessing ahead, which is not loaded unless asked for
    state, is_recurrent = _recurrent(keys, layers), _recurrent_layers(keys, layers)
    attention = _attention(keys)
    windows = _windows(keys, layers)
    with_cache = layers - keys.number("attention.shared_kv_layers")
    if architecture == "gemma3n":
        with_cache = min(layers, 20)  # the others use what these keep

    def cache(layer: int) -> LayerCache:
        recurrent, attends = is_recurrent(layer)
        key, value = attention(layer) if attends and layer < with_cache else (0, 0)
        return LayerCache(key, value, windows[layer], state if recurrent else 0)

    return tuple(cache(layer) for layer in range(layers))


@dataclass(frozen=True)
class _Keys:
    """Metadata under one architecture's prefix; numbers that are not there are 0."""

    architecture: str
    metadata: Metadata

    def number(self, key: str, default: int = 0) -> int:
        values = self._values(key)
        return int(values[0]) if values.size else default

    def of_layer(self, key: str, layer: int, default: int = 0) -> int:
        """-> where each layer has its own, that of this one"""
        values = self._values(key)
        return int(values[min(layer, values.size - 1)]) if values.size else default

    def has_several(self, key: str) -> bool:
        return self._values(key).size > 1

    def flags(self, key: str) -> list[bool]:
        return [bool(value) for value in self._values(key)] if self.has_several(key) else []

    def _values(self, key: str) -> np.ndarray[tuple[int], np.dtype[np.generic]]:
        value = self.metadata.get(f"{self.architecture}.{key}")
        if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "iub":
            return np.ravel(value)
        return np.empty(0, np.int64)


def _attention(keys: _Keys) -> Callable[[int], tuple[int, int]]:
    """-> widths of keys and values of a layer"""
    latent = keys.number("attention.kv_lora_rank")
    if latent and keys.architecture != "minicpm3" and keys.architecture != "plm":
        rotary = keys.number("rope.dimension_count")
        return lambda layer: (latent + rotary, 0)  # values are a part of what is kept as keys
    heads = keys.number("attention.head_count", 1)
    head = keys.number("embedding_length") // max(1, heads)
    key_length = keys.number("attention.key_length", head)
    value_length = keys.number("attention.value_length", head)

    def widths(layer: int) -> tuple[int, int]:
        own_heads = keys.of_layer("attention.head_count", layer, heads)
        shared = keys.of_layer("attention.head_count_kv", layer, own_heads)
        return shared * key_length, shared * value_length

    return widths


# Family -> (of how many layers one looks at all of the text, whether that is the first of them). Where the metadata
# has a pattern, that decides.
_WINDOW_PERIODS: Mapping[str, tuple[int, bool]] = {
    "gemma2": (2, False),
    "gemma3": (6, False),
    "gemma3n": (5, False),
    "gemma-embedding": (6, False),
    "gpt-oss": (2, False),
    "cohere2": (4, False),
    "llama4": (4, False),
    "olmo2": (4, False),
    "exaone4": (4, False),
    "exaone-moe": (4, False),
    "smallthinker": (4, True),
    "afmoe": (4, False),
}


def _windows(keys: _Keys, layers: int) -> list[int]:
    window = keys.number("attention.sliding_window")
    period, full_first = _WINDOW_PERIODS.get(keys.architecture, (0, False))
    if keys.architecture == "llama4":
        window = window or 8192  # chunks, which take as much
    if not window:
        return [0] * layers
    stated = keys.flags("attention.sliding_window_pattern")
    if len(stated) >= layers:
        return [window if slides else 0 for slides in stated[:layers]]
    period = keys.number("attention.sliding_window_pattern", period)
    if not period:  # a window that llama.cpp does not use for this family
        return [0] * layers
    full = 0 if full_first else period - 1
    return [0 if layer % period == full else window for layer in range(layers)]


# Families of which all layers are recurrent, and those of which all are both.
_ALL_RECURRENT = ("mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7")
_ALL_BOTH = ("falcon-h1",)
_BY_INTERVAL = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4}
_BY_HEADS = ("jamba", "granitehybrid", "plamo2", "lfm2", "lfm2moe", "nemotron_h", "nemotron_h_moe", "kimi-linear")


def _recurrent_layers(keys: _Keys, layers: int) -> Callable[[int], tuple[bool, bool]]:
    """-> of a layer: whether it has a recurrent state, and whether it attends"""
    family = keys.architecture
    if family in _ALL_RECURRENT:
        return lambda layer: (True, False)
    if family in _ALL_BOTH:
        return lambda layer: (True, True)
    if family in _BY_INTERVAL:
        interval = keys.number("full_attention_interval", _BY_INTERVAL[family])
        return lambda layer: ((layer + 1) % interval != 0, (layer + 1) % interval == 0)
    if family in _BY_HEADS:
        only_recurrent_without_ffn = family.startswith("nemotron_h")

        def by_heads(layer: int) -> tuple[bool, bool]:
            attends = keys.of_layer("attention.head_count_kv", layer) > 0
            other = only_recurrent_without_ffn and keys.of_layer("feed_forward_length", layer) > 0
            return not attends and not other, attends

        return by_heads
    return lambda layer: (False, True)


def _recurrent(keys: _Keys, layers: int) -> int:
    """-> 32-bit numbers that a recurrent layer keeps"""
    width = keys.number("embedding_length")
    if head := keys.number("wkv.head_size"):
        shifts = 1 if keys.architecture == "rwkv6qwen2" or keys.architecture == "arwkv7" else 2
        return keys.number("token_shift_count", shifts) * width + width * head
    if kept := keys.number("shortconv.l_cache"):
        return width * (kept - 1)
    if head := keys.number("kda.head_dim"):
        inner = keys.number("attention.head_count") * head
        return 3 * (keys.number("ssm.conv_kernel", 1) - 1) * inner + head * inner
    inner, state = keys.number("ssm.inner_size"), keys.number("ssm.state_size")
    convolved = inner + 2 * keys.number("ssm.group_count") * state
    return max(0, keys.number("ssm.conv_kernel") - 1) * convolved + state * inner


def _row_bytes(type_name: str, width: int) -> int:
    return format_named(type_name).row_bytes(width) if width else 0
