"""Qwen 2 and 2.5: Llama's layers with biases on query, key and value, and ggml's other rotary layout."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import heads_fill_width
from thriftbit.sources.architectures.kinds import every_layer
from thriftbit.sources.architectures.llama_like import (
    ATTENTION,
    ATTENTION_NORM,
    FFN_NORM,
    GATED_FFN,
    METADATA,
    QUERY_KEY_VALUE_BIASES,
    RMS_NORM,
    SILU,
)

ARCHITECTURE = Architecture(
    classes=("Qwen2ForCausalLM",),
    model_types=("qwen2",),
    gguf_name="qwen2",
    layers=every_layer(ATTENTION_NORM, ATTENTION, QUERY_KEY_VALUE_BIASES, FFN_NORM, GATED_FFN),
    metadata_keys=METADATA | RMS_NORM,
    defaults={"tie_word_embeddings": False, "rms_norm_eps": 1e-6, "use_sliding_window": False},
    fixed={"hidden_act": SILU},
    checks=(heads_fill_width,),
)
