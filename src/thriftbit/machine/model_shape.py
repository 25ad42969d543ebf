"""A model at one precision, in the numbers that decide its memory and speed: shapes and formats, and no weights."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from thriftbit.containers.entry import Entry
from thriftbit.containers.gguf_values import Metadata
from thriftbit.errors import ThriftbitError, shown
from thriftbit.machine.kv_cache import layer_caches
from thriftbit.sources.architectures.layer_cache import LayerCache

_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"
_LOOKED_UP = ("position_embd.weight", "per_layer_token_embd.weight", "token_types.weight")
_EXPERTS = "_exps."
_BLOCK = re.compile(r"blk\.(\d+)\.")
_RWKV_WIDTHS = 3
_COUNTS = ("_count", "_count_kv", "_length", "_rank", "_size")
_MOST = 1 << 31
_WITHOUT_FLASH_ATTENTION = "grok"  # llama.cpp, llama_init_from_model


@dataclass(frozen=True)
class ModelShape:
    """entries: the tensors, each with its format. layers: what each keeps of the text; None where that is not known.
    width, ffn, query: numbers for each token in the residual stream, in a dense feed-forward, in all queries.
    expert_ffn, experts, experts_used: 0 for a dense model. tokens, merges: entries of the tokenizer."""

    entries: tuple[Entry, ...]
    layers: tuple[LayerCache, ...] | None
    width: int
    ffn: int
    query: int
    expert_ffn: int
    experts: int
    experts_used: int
    context_tokens: int
    tokens: int
    merges: int
    convolved: int = 0
    """Numbers for each token inside a recurrent layer."""
    per_layer: int = 0
    """Numbers for each token that all layers get besides, of models with per-layer embeddings."""
    key_heads: tuple[int, ...] = ()
    """Widths of a head's keys, each that occurs once; value_heads the same of values."""
    value_heads: tuple[int, ...] = ()
    is_latent: bool = False
    """Whether keys and values are kept as one (latent attention)."""
    has_flash_attention: bool = True

    @property
    def weights_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.entries)

    @property
    def idle_bytes(self) -> int:
        """Return the weights that llama.cpp does not read while it writes one token after another: the layers for the
        tokens after the next."""
        return sum(entry.size_bytes for entry in self.entries if self._is_idle(entry))

    @property
    def is_mixture(self) -> bool:
        return bool(self.experts) and any(is_of_experts(entry) for entry in self.entries)

    @property
    def parameters(self) -> int:
        return sum(math.prod(entry.shape) for entry in self.entries)

    @property
    def active_parameters(self) -> float:
        """Return the parameters that take part in one token: all of a dense model; of a mixture the chosen experts and
        the rest. An embedding that is only looked up does not count (OpenAI's published number leaves it out, Qwen's
        does not)."""
        if not self.experts:
            return self.parameters
        return sum(math.prod(entry.shape) * self._share_read(entry) for entry in self.entries)

    @property
    def is_tied(self) -> bool:
        return all(entry.name != _OUTPUT for entry in self.entries)

    def bytes_per_token(self, counts: Callable[[Entry], bool] = lambda entry: True) -> dict[str, float]:
        """Return, for each format, the bytes of weights that are read to write one token. counts: tells of which
        tensors."""
        read: Counter[str] = Counter()
        for entry in filter(counts, self.entries):
            read[entry.format.name] += entry.size_bytes * self._share_read(entry)  # type: ignore[assignment]
        return {name: size for name, size in read.items() if size}

    def weights_per_token(self) -> dict[str, float]:
        """Return, for each format, the weights that are multiplied to read one token of a prompt."""
        multiplied: Counter[str] = Counter()
        for entry in self.entries:
            if len(entry.shape) > 1 and entry.name not in (_OUTPUT, _EMBEDDING):  # only the last token's are wanted
                share = self._share_read(entry)
                multiplied[entry.format.name] += math.prod(entry.shape) * share  # type: ignore[assignment]
        return {name: count for name, count in multiplied.items() if count}

    def _is_idle(self, entry: Entry) -> bool:
        layer = layer_of(entry)
        return self.layers is not None and layer is not None and layer >= len(self.layers)

    def _share(self, entry: Entry) -> float:
        if self._is_idle(entry):
            return 0.0
        return self.experts_used / self.experts if is_of_experts(entry) and self.experts else 1.0

    def _share_read(self, entry: Entry) -> float:
        if entry.name in _LOOKED_UP or (entry.name == _EMBEDDING and not self.is_tied):
            return 1 / math.prod(entry.shape[:-1])
        return self._share(entry)


def layer_of(entry: Entry) -> int | None:
    """Return the number of the layer that a tensor belongs to; None for the embedding, the output and their like."""
    return _layer_named(entry.name)


@lru_cache(maxsize=1 << 14)
def _layer_named(name: str) -> int | None:
    found = _BLOCK.match(name)
    return int(found[1]) if found else None


def is_of_experts(entry: Entry) -> bool:
    """Whether a tensor holds the experts of a layer, of which each token takes a few."""
    return _EXPERTS in entry.name


def shape_of(architecture: str, metadata: Metadata, entries: Sequence[Entry]) -> ModelShape:
    """architecture, metadata: as a GGUF has them; what is not in it counts as 0.
    Raises ThriftbitError for a count or length that is negative, or beyond what llama.cpp reads."""
    _check_counts(architecture, metadata)

    def number(key: str, default: int = 0) -> int:
        values = np.ravel(metadata.get(f"{architecture}.{key}", default))
        whole = values.size and np.issubdtype(values.dtype, np.integer)
        return int(values.max()) if whole else default

    embedding = next((entry for entry in entries if entry.name == _EMBEDDING), None)
    heads, width = number("attention.head_count"), number("embedding_length")
    ffn = number("feed_forward_length")
    experts = number("expert_count")
    key_head = number("attention.key_length", width // heads if heads else 0)
    value_head = number("attention.value_length", width // heads if heads else 0)
    layers = layer_caches(architecture, metadata)
    has_windows = any(layer.window_tokens for layer in layers or ())
    return ModelShape(
        entries=tuple(entries),
        layers=layers,
        width=width,
        ffn=ffn if _has_dense_ffn(entries) else 0,
        query=heads * key_head,
        expert_ffn=number("expert_feed_forward_length", ffn) if experts else 0,
        experts=experts,
        experts_used=number("expert_used_count") if experts else 0,
        context_tokens=number("context_length"),
        tokens=embedding.shape[0] if embedding else number("vocab_size"),
        merges=_length(metadata, "tokenizer.ggml.merges"),
        convolved=_RWKV_WIDTHS * width
        if number("wkv.head_size")
        else number("ssm.inner_size") + 2 * number("ssm.group_count") * number("ssm.state_size"),
        per_layer=number("embedding_length_per_layer_input") * number("block_count"),
        key_heads=_distinct(key_head, number("attention.key_length_swa") if has_windows else 0),
        value_heads=_distinct(value_head, number("attention.value_length_swa") if has_windows else 0),
        is_latent=number("attention.kv_lora_rank") > 0 and number("attention.key_length_mla") > 0,
        has_flash_attention=architecture != _WITHOUT_FLASH_ATTENTION,
    )


def _distinct(*widths: int) -> tuple[int, ...]:
    return tuple(dict.fromkeys(width for width in widths if width))


def _check_counts(architecture: str, metadata: Metadata) -> None:
    for key, value in metadata.items():
        if key.startswith(f"{architecture}.") and key.endswith(_COUNTS):
            values = np.ravel(value)
            if values.size and (values.dtype.kind not in "iu" or not 0 <= values.min() <= values.max() < _MOST):
                raise ThriftbitError(f"{key} is {shown(value)}, and should be a whole number: the file is damaged")


def _has_dense_ffn(entries: Sequence[Entry]) -> bool:
    return any(".ffn_up.weight" in entry.name or ".ffn_down.weight" in entry.name for entry in entries)


def _length(metadata: Mapping[str, object], key: str) -> int:
    value = metadata.get(key)
    return len(value) if isinstance(value, list) else 0
