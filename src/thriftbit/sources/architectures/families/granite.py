"""Granite 3: Llama with four multipliers."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import all_of_each_head_rotated
from thriftbit.sources.architectures.kinds import every_layer
from thriftbit.sources.architectures.llama_like import (
    LLAMA_LAYERS,
    METADATA,
    RMS_NORM,
    SILU,
)
from thriftbit.sources.architectures.rope import WITH_FACTORS

ARCHITECTURE = Architecture(
    classes=("GraniteForCausalLM",),
    model_types=("granite",),
    gguf_name="granite",
    layers=every_layer(LLAMA_LAYERS),
    metadata_keys=METADATA
    | RMS_NORM
    | {
        "attention.scale": "attention_multiplier",
        "embedding_scale": "embedding_multiplier",
        "residual_scale": "residual_multiplier",
        "logit_scale": "logits_scaling",
    },
    defaults={
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-6,
        "attention_multiplier": 1.0,
        "embedding_multiplier": 1.0,
        "residual_multiplier": 1.0,
        "logits_scaling": 1.0,
    },
    fixed={"hidden_act": SILU},
    checks=(all_of_each_head_rotated,),
    rope_types=WITH_FACTORS,
)
