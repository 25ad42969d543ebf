"""Checkpoints made of a configuration: small, complete, and as wrong as a test wants them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from thriftbit.errors import ThriftbitError
from thriftbit.sources.architectures import find_architecture
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


def of(name: str, values: NDArray[np.float32]) -> Tensor:
    rows = values.reshape(-1, values.shape[-1])
    return Tensor(name, values.shape, "F32", lambda start, stop: rows[start:stop].copy())


def tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    return of(name, np.full(shape, 0.5, dtype=np.float32))


def checkpoint(config: dict[str, Any], *, one_by_one: bool = False, **changes: tuple[int, ...] | None) -> Checkpoint:
    """A checkpoint with every tensor that the rows ask for, a head even where it is the embedding.
    one_by_one: every expert in tensors of its own; changes: name -> another shape, None to leave it out."""
    architecture = find_architecture(config)
    settings = architecture.configuration(config)
    shapes: dict[str, tuple[int, ...] | None] = {}
    for entry in architecture.entries(architecture.dimensions(architecture.metadata(config))):
        if entry.row.when and not settings.flag(entry.row.when):
            continue
        spelled = list(entry.spellings())[1 if one_by_one and entry.row.spellings else 0]
        rows = int(np.prod(entry.source_shape[:-1])) // len(spelled)
        shape = (rows, entry.source_shape[-1]) if len(spelled) > 1 else entry.source_shape
        shapes |= dict.fromkeys(spelled, shape)
    shapes |= changes
    return Checkpoint(Path("model"), config, {name: tensor(name, s) for name, s in shapes.items() if s is not None})


def names(config: dict[str, Any], made: Checkpoint) -> list[str]:
    return [tensor.name for tensor in find_architecture(config).map_tensors(made)]


def refused(config: dict[str, Any], *words: str, **changes: tuple[int, ...] | None) -> None:
    with pytest.raises(ThriftbitError) as error:
        find_architecture(config).map_tensors(checkpoint(config, **changes))
    for word in words:
        assert word in str(error.value)
    assert str(error.value).count("\n") < 2
