"""Mistral 7B and its successors: Llama's computation, under Llama's GGUF name."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.kinds import every_layer
from thriftbit.sources.architectures.llama_like import (
    ATTENTION_NORM,
    FFN_NORM,
    GATED_FFN,
    INTERLEAVED_ATTENTION,
    METADATA,
    RMS_NORM,
    SILU,
)
from thriftbit.sources.architectures.rope import WITH_FACTORS

ARCHITECTURE = Architecture(
    classes=("MistralForCausalLM",),
    model_types=("mistral",),
    gguf_name="llama",
    layers=every_layer(ATTENTION_NORM, INTERLEAVED_ATTENTION, FFN_NORM, GATED_FFN),
    metadata_keys=METADATA | RMS_NORM,
    defaults={"tie_word_embeddings": False, "rms_norm_eps": 1e-6, "num_key_value_heads": 8},
    fixed={"hidden_act": SILU},
    rope_types=WITH_FACTORS,
)
