"""Table rows that many families share, because they descend from Llama's layout.

A row is `Row(source name, container name, shape at the source, transform, condition)`; see `architecture.py`.
Families list the rows in the order in which the container is to hold them.
"""

from __future__ import annotations

from thriftbit.sources.architectures.architecture import EMBEDDING, OUTPUT, Row
from thriftbit.sources.architectures.transforms import (
    IDENTITY,
    INTERLEAVE_KEY,
    INTERLEAVE_QUERY,
    TRANSPOSE,
    Transform,
)

LAYER = "model.layers.{layer}."
BLOCK = "blk.{layer}."

SILU = ("silu", "swish")
GELU_TANH = ("gelu_pytorch_tanh", "gelu_new", "gelu_fast")
GELU = (*GELU_TANH, "gelu")  # llama.cpp computes the exact one by the same approximation, at most 5e-4 off

# GGUF key -> configuration key, for the keys that every family here has.
METADATA = {
    "vocab_size": "vocab_size",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
}
RMS_NORM = {"attention.layer_norm_rms_epsilon": "rms_norm_eps"}
LAYER_NORM = {"attention.layer_norm_epsilon": "layer_norm_eps"}


def layer(source: str, target: str, shape: str, transform: Transform = IDENTITY, when: str = "") -> Row:
    """A row of every layer: both names are given from the layer on."""
    return Row(LAYER + source, BLOCK + target, shape, transform, when)


def norm(source: str, target: str, shape: str = "width", transform: Transform = IDENTITY) -> Row:
    return layer(f"{source}.weight", f"{target}.weight", shape, transform)


def weight_and_bias(source: str, target: str, shape: str, transform: Transform = IDENTITY) -> tuple[Row, Row]:
    """A matrix or norm and the bias of its outputs. Reordered outputs reorder the bias as well."""
    outputs = shape.split()[-1] if transform is TRANSPOSE else shape.split()[0]
    bias_transform = IDENTITY if transform is TRANSPOSE else transform
    return (
        Row(f"{source}.weight", f"{target}.weight", shape, transform),
        Row(f"{source}.bias", f"{target}.bias", outputs, bias_transform),
    )


TOKEN_EMBEDDING = Row("model.embed_tokens.weight", EMBEDDING, "vocabulary width")
FINAL_NORM = Row("model.norm.weight", "output_norm.weight", "width")
HEAD = Row("lm_head.weight", OUTPUT, "vocabulary width")

ATTENTION_NORM = norm("input_layernorm", "attn_norm")
FFN_NORM = norm("post_attention_layernorm", "ffn_norm")

VALUE = layer("self_attn.v_proj.weight", "attn_v.weight", "key_value width")
ATTENTION_OUTPUT = layer("self_attn.o_proj.weight", "attn_output.weight", "width query")

ATTENTION = (
    layer("self_attn.q_proj.weight", "attn_q.weight", "query width"),
    layer("self_attn.k_proj.weight", "attn_k.weight", "key_value width"),
    VALUE,
    ATTENTION_OUTPUT,
)
INTERLEAVED_ATTENTION = (
    layer("self_attn.q_proj.weight", "attn_q.weight", "query width", INTERLEAVE_QUERY),
    layer("self_attn.k_proj.weight", "attn_k.weight", "key_value width", INTERLEAVE_KEY),
    VALUE,
    ATTENTION_OUTPUT,
)
INTERLEAVED_ATTENTION_BIASES = (
    layer("self_attn.q_proj.bias", "attn_q.bias", "query", INTERLEAVE_QUERY, when="attention_bias"),
    layer("self_attn.k_proj.bias", "attn_k.bias", "key_value", INTERLEAVE_KEY, when="attention_bias"),
    layer("self_attn.v_proj.bias", "attn_v.bias", "key_value", when="attention_bias"),
    layer("self_attn.o_proj.bias", "attn_output.bias", "width", when="attention_bias"),
)
QUERY_KEY_VALUE_BIASES = (
    layer("self_attn.q_proj.bias", "attn_q.bias", "query"),
    layer("self_attn.k_proj.bias", "attn_k.bias", "key_value"),
    layer("self_attn.v_proj.bias", "attn_v.bias", "key_value"),
)
QUERY_KEY_NORMS = (
    norm("self_attn.q_norm", "attn_q_norm", "head"),
    norm("self_attn.k_norm", "attn_k_norm", "head"),
)
GATED_FFN = (
    layer("mlp.gate_proj.weight", "ffn_gate.weight", "ffn width"),
    layer("mlp.up_proj.weight", "ffn_up.weight", "ffn width"),
    layer("mlp.down_proj.weight", "ffn_down.weight", "width ffn"),
)
GATED_FFN_BIASES = (
    layer("mlp.gate_proj.bias", "ffn_gate.bias", "ffn", when="mlp_bias"),
    layer("mlp.up_proj.bias", "ffn_up.bias", "ffn", when="mlp_bias"),
    layer("mlp.down_proj.bias", "ffn_down.bias", "width", when="mlp_bias"),
)
# Llama's own layers, with the biases that some descendants have.
LLAMA_LAYERS = (
    ATTENTION_NORM,
    *INTERLEAVED_ATTENTION,
    *INTERLEAVED_ATTENTION_BIASES,
    FFN_NORM,
    *GATED_FFN,
    *GATED_FFN_BIASES,
)
