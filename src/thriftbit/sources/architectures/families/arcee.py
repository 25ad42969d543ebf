"""Arcee's AFM: Llama's attention, and a feed-forward network without a gate (squared ReLU)."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.kinds import every_layer
from thriftbit.sources.architectures.llama_like import (
    ATTENTION_NORM,
    FFN_NORM,
    FFN_WITHOUT_GATE,
    INTERLEAVED_ATTENTION,
    METADATA,
    RMS_NORM,
)
from thriftbit.sources.architectures.rope import WITH_FACTORS

ARCHITECTURE = Architecture(
    classes=("ArceeForCausalLM",),
    model_types=("arcee",),
    gguf_name="arcee",
    layers=every_layer(ATTENTION_NORM, INTERLEAVED_ATTENTION, FFN_NORM, FFN_WITHOUT_GATE),
    metadata_keys=METADATA | RMS_NORM,
    defaults={"tie_word_embeddings": False, "rms_norm_eps": 1e-5},
    fixed={"hidden_act": ("relu2",), "attention_bias": (False,), "mlp_bias": (False,)},
    rope_types=WITH_FACTORS,
)
