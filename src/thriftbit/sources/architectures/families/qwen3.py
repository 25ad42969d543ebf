"""Qwen 3: normalised queries and keys, no biases."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.kinds import every_layer
from thriftbit.sources.architectures.llama_like import (
    ATTENTION,
    ATTENTION_NORM,
    FFN_NORM,
    GATED_FFN,
    METADATA,
    QUERY_KEY_NORMS,
    RMS_NORM,
    SILU,
)

ARCHITECTURE = Architecture(
    classes=("Qwen3ForCausalLM",),
    model_types=("qwen3",),
    gguf_name="qwen3",
    layers=every_layer(ATTENTION_NORM, ATTENTION, QUERY_KEY_NORMS, FFN_NORM, GATED_FFN),
    metadata_keys=METADATA | RMS_NORM,
    defaults={"tie_word_embeddings": False, "rms_norm_eps": 1e-6, "head_dim": 128, "use_sliding_window": False},
    fixed={"hidden_act": SILU},
)
