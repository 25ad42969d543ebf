"""GLM-4, dense (2025): norms before and after each half, gate and up in one matrix, half of each head rotated."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.kinds import Kind, every_layer
from thriftbit.sources.architectures.llama_like import (
    ATTENTION,
    ATTENTION_NORM,
    FFN_NORM,
    METADATA,
    OPTIONAL_QUERY_KEY_VALUE_BIASES,
    RMS_NORM,
    SILU,
)
from thriftbit.sources.architectures.rows import layer, norm

FFN = Kind(
    (
        layer("mlp.gate_up_proj.weight", "ffn_up.weight", "gate_up width"),
        layer("mlp.down_proj.weight", "ffn_down.weight", "width ffn"),
    )
)

ARCHITECTURE = Architecture(
    classes=("Glm4ForCausalLM",),
    model_types=("glm4",),
    gguf_name="glm4",
    layers=every_layer(
        ATTENTION_NORM,
        ATTENTION,
        OPTIONAL_QUERY_KEY_VALUE_BIASES,
        norm("post_self_attn_layernorm", "post_attention_norm"),
        FFN_NORM,
        FFN,
        norm("post_mlp_layernorm", "post_ffw_norm"),
    ),
    metadata_keys=METADATA | RMS_NORM,
    defaults={
        "tie_word_embeddings": False,
        "rms_norm_eps": 1.5625e-7,
        "partial_rotary_factor": 0.5,
        "attention_bias": False,
    },
    fixed={"hidden_act": SILU},
    rotates_parts=True,
)
