"""Llama 1 to 3, and everything that was published in its shape."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.kinds import every_layer
from thriftbit.sources.architectures.llama_like import (
    LLAMA_LAYERS,
    METADATA,
    RMS_NORM,
    SILU,
)
from thriftbit.sources.architectures.rope import WITH_FACTORS

ARCHITECTURE = Architecture(
    classes=("LlamaForCausalLM", "LLaMAForCausalLM"),
    model_types=("llama",),
    gguf_name="llama",
    layers=every_layer(LLAMA_LAYERS),
    metadata_keys=METADATA | RMS_NORM,
    defaults={"tie_word_embeddings": False, "rms_norm_eps": 1e-6},
    fixed={"hidden_act": SILU},
    rope_types=WITH_FACTORS,
)
