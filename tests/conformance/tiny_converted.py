"""Tiny models of classes without a table, which take the way through llama.cpp's converter: class and settings.

Lengths and orders of layers are those that llama.cpp has built in for the family, where it has some.
"""

from __future__ import annotations

from .tiny_models import VOCABULARY
from .tiny_shapes import SHAPE

WIDE = SHAPE | {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "head_dim": 16}
BY_CONVERTER = {
    "ApertusForCausalLM": WIDE,
    "Gemma3nForCausalLM": WIDE
    | {
        "num_hidden_layers": 5,
        "intermediate_size": [96] * 5,
        "activation_sparsity_pattern": [0.95] * 5,
        "layer_types": [*["sliding_attention"] * 4, "full_attention"],
        "num_kv_shared_layers": 0,
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 256,
        "laurel_rank": 64,
        "sliding_window": 24,
        "rope_parameters": None,
    },
}
