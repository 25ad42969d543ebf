"""The smallest model that llama.cpp loads: one layer of zeros, a few megabytes for a vocabulary of 256,000.

It serves where only what is beside the weights is wanted: a tokenizer, a chat template.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from gguf import Keys

from thriftbit.containers.entry import Entry
from thriftbit.containers.gguf_values import Metadata, MetadataValue
from thriftbit.containers.gguf_writer import GGUFWriter, layout
from thriftbit.formats import format_named

_WIDTH = 32
_METADATA: Metadata = {
    "general.architecture": "llama",
    "llama.block_count": np.uint32(1),
    "llama.context_length": np.uint32(64),
    "llama.embedding_length": np.uint32(_WIDTH),
    "llama.feed_forward_length": np.uint32(_WIDTH),
    "llama.attention.head_count": np.uint32(1),
    "llama.attention.layer_norm_rms_epsilon": np.float32(1e-5),
}
_NORMS = ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")
_MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def write_smallest(path: Path, tokenizer: Mapping[str, MetadataValue]) -> Path:
    """Return the smallest model that llama.cpp loads, with these metadata of a tokenizer."""
    f32, small = format_named("F32"), format_named("Q4_0")
    tokens = tokenizer[Keys.Tokenizer.LIST]
    assert isinstance(tokens, list)
    entries = [Entry("token_embd.weight", (len(tokens), _WIDTH), small)]
    entries += [Entry(f"{name}.weight", (_WIDTH,), f32) for name in _NORMS]
    entries += [Entry(f"blk.0.{name}.weight", (_WIDTH, _WIDTH), small) for name in _MATRICES]
    with GGUFWriter(path, layout({**_METADATA, **tokenizer}, entries)) as writer:
        for entry in entries:
            writer.write(entry.name, [np.zeros(entry.size_bytes, np.uint8)])  # blocks of nothing but zeros are zeros
    return path
