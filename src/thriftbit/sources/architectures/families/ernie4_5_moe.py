"""ERNIE 4.5 with experts: dense layers first, then experts that are chosen with a bias, and perhaps shared ones."""

from collections.abc import Mapping
from typing import Any

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.architectures.kinds import Kind, layer_of
from thriftbit.sources.architectures.llama_like import (
    ATTENTION,
    ATTENTION_NORM,
    FFN_NORM,
    GATED_FFN,
    METADATA,
    RMS_NORM,
    ROUTER,
    SILU,
    routed_experts,
    shared_experts,
)
from thriftbit.sources.architectures.rows import layer

BIAS = layer(
    "mlp.gate.moe_statics.e_score_correction_bias",
    "exp_probs_b.bias",
    "1 experts",
    spellings=(("mlp.moe_statics.e_score_correction_bias",),),
)
HALF = layer_of(ATTENTION_NORM, ATTENTION, FFN_NORM)


def layers(model: Dimensions) -> list[Kind]:
    first = model.number("leading_dense_block_count", 0, least=0)
    shared = [shared_experts()] if model.has("expert_shared_feed_forward_length") else []
    sparse = layer_of(HALF, ROUTER, BIAS, routed_experts(), *shared)
    return [layer_of(HALF, GATED_FFN) if number < first else sparse for number in range(model.layers)]


def shared_width(configuration: Configuration) -> int | None:
    return configuration.integer("moe_num_shared_experts") * configuration.integer("moe_intermediate_size") or None


def experts_to_the_end(configuration: Configuration, model: Dimensions) -> str | None:
    last = configuration.get("moe_layer_end_index", -1)
    if last in (-1, model.layers - 1):
        return None
    return f"moe_layer_end_index is {last}; llama.cpp has experts up to the last layer."


def restored(stated: Mapping[str, Any]) -> dict[str, Any]:
    return {"moe_layer_end_index": stated["block_count"] - 1}


ARCHITECTURE = Architecture(
    classes=("Ernie4_5_MoeForCausalLM",),
    model_types=("ernie4_5_moe",),
    gguf_name="ernie4_5-moe",
    layers=layers,
    lengths={"shared_ffn": lambda model: model.number("expert_shared_feed_forward_length")},
    metadata_keys=METADATA
    | RMS_NORM
    | {
        "expert_count": "moe_num_experts",
        "expert_used_count": "moe_k",
        "expert_feed_forward_length": "moe_intermediate_size",
        "expert_shared_count": "moe_num_shared_experts",
        "expert_shared_feed_forward_length": shared_width,
        "interleave_moe_layer_step": "moe_layer_interval",
        "leading_dense_block_count": "moe_layer_start_index",
    },
    restored=restored,
    defaults={
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "moe_k": 6,
        "moe_num_shared_experts": 2,
        "moe_layer_interval": 1,
        "moe_layer_start_index": 1,
    },
    fixed={"hidden_act": SILU, "use_bias": (False,), "moe_layer_interval": (1,), "moe_norm_min": (1e-12,)},
    checks=(experts_to_the_end,),
    ignorable=(r"^model\.mtp_",),
)
