"""ERNIE 4.5, dense: Llama's layers, whose rotary embedding pairs neighbours on both sides."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.kinds import every_layer
from thriftbit.sources.architectures.llama_like import (
    ATTENTION,
    ATTENTION_NORM,
    FFN_NORM,
    GATED_FFN,
    METADATA,
    RMS_NORM,
    SILU,
)

ARCHITECTURE = Architecture(
    classes=("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"),
    model_types=("ernie4_5",),
    gguf_name="ernie4_5",
    layers=every_layer(ATTENTION_NORM, ATTENTION, FFN_NORM, GATED_FFN),
    metadata_keys=METADATA | RMS_NORM,
    defaults={"tie_word_embeddings": True, "rms_norm_eps": 1e-5, "head_dim": 128, "rope_theta": 500000.0},
    fixed={"hidden_act": SILU, "use_bias": (False,)},
)
