"""GGUF's names for the tensors of classes without a table, as far as llama.cpp's package has them.

llama.cpp's own Python package knows what dozens of families call their tensors. That is enough for sizes: which tensors
there are, how large they are, and which preset rule applies. It is not enough to convert: for that, llama.cpp's
converter is used. Facts about single families belong into `architectures/families/`, not here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import gguf
import numpy as np

from thriftbit.containers.gguf_values import MetadataValue
from thriftbit.sources.architectures.roles import role_of
from thriftbit.sources.architectures.spelling import other_part, text_name
from thriftbit.sources.tensor import Tensor
from thriftbit.strangers import harmless, shortened

_EXPERT = re.compile(r"\.experts\.(\d+)\.")
_SUFFIXES = (".weight", ".bias")
_MOST_LAYERS = 1024
_LONGEST_NAME, _MOST_AXES = 63, 4  # of a tensor in a GGUF
_NAMED_AS_MOST = "llama"  # most families share its tensor names

# GGUF key without its prefix -> configuration keys, the first that is there
_KEYS: Mapping[str, tuple[str, ...]] = {
    "block_count": ("num_hidden_layers", "n_layer", "num_layers"),
    "context_length": ("max_position_embeddings", "n_positions", "max_seq_len"),
    "embedding_length": ("hidden_size", "n_embd", "d_model"),
    "feed_forward_length": ("intermediate_size", "n_inner", "ffn_dim"),
    "attention.head_count": ("num_attention_heads", "n_head"),
    "attention.head_count_kv": ("num_key_value_heads", "num_attention_heads", "n_head"),
    "attention.sliding_window": ("sliding_window", "attention_chunk_size"),
    "attention.kv_lora_rank": ("kv_lora_rank",),
    "expert_count": ("num_local_experts", "num_experts", "n_routed_experts"),
    "expert_used_count": ("num_experts_per_tok", "moe_topk", "num_experts_per_token"),
    "expert_feed_forward_length": ("moe_intermediate_size",),
    "rope.dimension_count": ("qk_rope_head_dim",),
    "full_attention_interval": ("full_attention_interval",),
    "ssm.conv_kernel": ("mamba_d_conv", "conv_kernel", "linear_conv_kernel_dim", "mamba_conv_kernel"),
    "ssm.state_size": ("mamba_d_state", "state_size", "linear_key_head_dim", "ssm_state_size"),
    "ssm.group_count": ("mamba_n_groups", "n_groups", "linear_num_key_heads"),
    "ssm.time_step_rank": ("mamba_n_heads", "linear_num_value_heads"),
    "ssm.inner_size": ("mamba_d_ssm", "intermediate_size"),
}


def gguf_architecture(config: Mapping[str, Any]) -> str:
    """Return llama.cpp's name of the family if the package has one, else the configuration's own name."""
    text = config.get("text_config")
    named = [config.get("model_type"), text.get("model_type") if isinstance(text, Mapping) else None]
    model_types = [name for name in named if isinstance(name, str) and name]
    known = {_plain(name): name for name in gguf.MODEL_ARCH_NAMES.values()}
    for name in model_types:
        if found := known.get(_plain(name)) or known.get(_plain(name.removesuffix("_text"))):
            return found
    return shortened(harmless(model_types[0], keep=""), 40) if model_types else "unknown"


def translated(tensors: Iterable[Tensor], architecture: str, layers: int) -> tuple[Tensor, ...]:
    """Return the tensors of the text model under GGUF's names, experts stacked. A tensor without such a name keeps its
    own. Their rows cannot be read from these."""
    numbers = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    number = numbers.get(architecture, numbers[_NAMED_AS_MOST])
    names = gguf.get_tensor_name_map(number, min(layers, _MOST_LAYERS))
    merged: dict[str, Tensor] = {}
    for tensor in tensors:
        if other_part(tensor.name):
            continue
        name = text_name(tensor.name, {})
        plain = _EXPERT.sub(".experts.", name)
        target = names.get_name(plain, try_suffixes=_SUFFIXES) or name[-_LONGEST_NAME:]
        shape = tensor.shape if len(tensor.shape) <= _MOST_AXES else (tensor.rows, tensor.width)
        if plain != name:
            stacked = merged[target].shape[0] + 1 if target in merged else 1
            shape = (stacked, *tensor.shape)
        merged[target] = Tensor(target, shape, tensor.source_dtype, tensor.read, role_of(target))
    return tuple(merged.values())


def translated_metadata(config: Mapping[str, Any], architecture: str) -> dict[str, MetadataValue]:
    """Return the settings of an unknown family's layers, under llama.cpp's GGUF keys."""
    text = config.get("text_config")
    values = {**config, **text} if isinstance(text, Mapping) else dict(config)
    metadata: dict[str, MetadataValue] = {}
    for key, candidates in _KEYS.items():
        value = next((values[name] for name in candidates if _is_count(values.get(name))), None)
        if value is not None:
            metadata[f"{architecture}.{key}"] = np.uint32(value)
    heads = metadata.get(f"{architecture}.attention.head_count")
    width = metadata.get(f"{architecture}.embedding_length")
    head = values.get("head_dim")
    if not isinstance(head, int) and isinstance(heads, np.integer) and isinstance(width, np.integer) and heads:
        head = int(width) // int(heads)
    if isinstance(head, int) and _is_count(head):
        metadata[f"{architecture}.attention.key_length"] = np.uint32(head)
        metadata[f"{architecture}.attention.value_length"] = np.uint32(head)
    return metadata


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 31


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
