"""Hunyuan, dense: Llama's layers with queries and keys that are normalised after rotation."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.kinds import Kind, every_layer
from thriftbit.sources.architectures.llama_like import (
    ATTENTION,
    ATTENTION_NORM,
    FFN_NORM,
    GATED_FFN,
    METADATA,
    RMS_NORM,
    SILU,
)
from thriftbit.sources.architectures.rows import norm

QUERY_KEY_NORMS = Kind(
    (
        norm("self_attn.query_layernorm", "attn_q_norm", "head"),
        norm("self_attn.key_layernorm", "attn_k_norm", "head"),
    )
)

ARCHITECTURE = Architecture(
    classes=("HunYuanDenseV1ForCausalLM",),
    model_types=("hunyuan_v1_dense",),
    gguf_name="hunyuan-dense",
    layers=every_layer(ATTENTION_NORM, ATTENTION, QUERY_KEY_NORMS, FFN_NORM, GATED_FFN),
    metadata_keys=METADATA | RMS_NORM,
    defaults={"tie_word_embeddings": False, "rms_norm_eps": 1e-5},
    fixed={"hidden_act": SILU, "attention_bias": (False,)},
    rope_types=frozenset({"default"}),
)
