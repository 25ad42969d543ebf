"""Checkpoints made of a configuration: small, complete, and as wrong as a test wants them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from thriftbit.sources.architectures import find_architecture
from thriftbit.sources.architectures.dimensions import dimensions_of
from thriftbit.sources.checkpoint import Checkpoint
from thriftbit.sources.tensor import Tensor

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 21,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
GEMMA3 = {
    "architectures": ["Gemma3ForCausalLM"],
    "vocab_size": 21,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": 32,
}
GEMMA2 = GEMMA3 | {
    "architectures": ["Gemma2ForCausalLM"],
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}
GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "vocab_size": 21,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 32,
    "n_ctx": 32,
}


def tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    values = np.full((int(np.prod(shape[:-1])), shape[-1]), 0.5, dtype=np.float32)
    return Tensor(name, shape, "F32", lambda start, stop: values[start:stop].copy())


def checkpoint(config: dict[str, Any], **changes: tuple[int, ...] | None) -> Checkpoint:
    """A checkpoint with every tensor that the rows ask for; changes: name -> another shape, None to leave it out."""
    architecture = find_architecture(config)
    dimensions = dimensions_of(architecture.gguf_name, architecture.metadata(config))
    shapes: dict[str, tuple[int, ...] | None] = {}
    for row in architecture.rows:
        for layer in range(dimensions.layers):
            for expert in range(max(dimensions.experts, 1)):
                if not row.when or config.get(row.when):
                    shapes[row.source.format(layer=layer, expert=expert)] = dimensions.shape(row.shape)
    shapes |= changes
    return Checkpoint(Path("model"), config, {name: tensor(name, s) for name, s in shapes.items() if s is not None})
