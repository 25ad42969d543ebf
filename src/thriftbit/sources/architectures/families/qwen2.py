"""Qwen 2 and 2.5: Llama's layers with biases on query, key and value, and ggml's other rotary layout."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import heads_fill_width
from thriftbit.sources.architectures.llama_like import (
    ATTENTION,
    ATTENTION_NORM,
    FFN_NORM,
    FINAL_NORM,
    GATED_FFN,
    HEAD,
    METADATA,
    QUERY_KEY_VALUE_BIASES,
    RMS_NORM,
    SILU,
    TOKEN_EMBEDDING,
)

ARCHITECTURE = Architecture(
    classes=("Qwen2ForCausalLM",),
    model_types=("qwen2",),
    gguf_name="qwen2",
    rows=(
        TOKEN_EMBEDDING,
        ATTENTION_NORM,
        *ATTENTION,
        *QUERY_KEY_VALUE_BIASES,
        FFN_NORM,
        *GATED_FFN,
        FINAL_NORM,
        HEAD,
    ),
    metadata_keys=METADATA | RMS_NORM,
    defaults={"tie_word_embeddings": False, "rms_norm_eps": 1e-6, "use_sliding_window": False},
    fixed={"hidden_act": SILU},
    checks=(heads_fill_width,),
)
