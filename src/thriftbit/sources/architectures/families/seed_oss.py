"""Seed-OSS: Llama's layers with biases on query, key and value, and all heads together wider than the hidden state."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.kinds import every_layer
from thriftbit.sources.architectures.llama_like import (
    ATTENTION,
    ATTENTION_NORM,
    GATED_FFN,
    METADATA,
    QUERY_KEY_VALUE_BIASES,
    RMS_NORM,
    SILU,
)
from thriftbit.sources.architectures.rows import norm

ARCHITECTURE = Architecture(
    classes=("SeedOssForCausalLM",),
    model_types=("seed_oss",),
    gguf_name="seed_oss",
    layers=every_layer(
        ATTENTION_NORM,
        ATTENTION,
        QUERY_KEY_VALUE_BIASES,
        norm("post_attention_layernorm", "post_attention_norm"),
        GATED_FFN,
    ),
    metadata_keys=METADATA | RMS_NORM,
    defaults={"tie_word_embeddings": False, "rms_norm_eps": 1e-6, "head_dim": 128},
    fixed={"hidden_act": SILU, "attention_bias": (True,), "attention_out_bias": (False,), "mlp_bias": (False,)},
)
