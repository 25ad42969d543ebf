"""Granite 3: Llama with four multipliers."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import no_zero
from thriftbit.sources.architectures.keys import Setting
from thriftbit.sources.architectures.kinds import every_layer
from thriftbit.sources.architectures.llama_like import (
    LLAMA_LAYERS,
    METADATA,
    RMS_NORM,
    SILU,
)
from thriftbit.sources.architectures.rope import WITH_FACTORS

MULTIPLIERS: dict[str, Setting] = {
    "attention.scale": "attention_multiplier",
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "logit_scale": "logits_scaling",
}
NO_ZERO = no_zero("attention_multiplier", "embedding_multiplier", "residual_multiplier", "logits_scaling")
MULTIPLIERS_OF_ONE = {setting: 1.0 for setting in MULTIPLIERS.values() if isinstance(setting, str)}

ARCHITECTURE = Architecture(
    classes=("GraniteForCausalLM",),
    model_types=("granite",),
    gguf_name="granite",
    layers=every_layer(LLAMA_LAYERS),
    metadata_keys=METADATA | RMS_NORM | MULTIPLIERS,
    defaults={"tie_word_embeddings": False, "rms_norm_eps": 1e-6} | MULTIPLIERS_OF_ONE,
    fixed={"hidden_act": SILU},
    checks=(NO_ZERO,),
    rope_types=WITH_FACTORS,
    recognised=lambda model: not model.has("rope.scaling.finetuned"),
)
