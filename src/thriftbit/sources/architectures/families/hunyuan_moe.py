"""Hunyuan A13B: Hunyuan's attention, routed experts and a shared one in every layer."""

from typing import Any

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.architectures.families import hunyuan_dense
from thriftbit.sources.architectures.families.hunyuan_dense import POSITIONS, QUERY_KEY_NORMS
from thriftbit.sources.architectures.kinds import every_layer
from thriftbit.sources.architectures.llama_like import (
    ATTENTION,
    ATTENTION_NORM,
    FFN_NORM,
    METADATA,
    RMS_NORM,
    SILU,
    routed_experts,
    shared_experts,
)
from thriftbit.sources.architectures.rows import layer


def of_every_layer(setting: str, default: int) -> Any:
    """Return a function that reads a setting which published configurations repeat for every layer."""

    def found(configuration: Configuration) -> Any:
        value = configuration.get(setting, default)
        return value[0] if isinstance(value, list) and value else value

    return found


def all_layers_alike(configuration: Configuration, model: Dimensions) -> str | None:
    for setting in ("moe_topk", "moe_intermediate_size", "num_shared_expert", "num_experts"):
        value = configuration.get(setting)
        if isinstance(value, list) and len(set(map(str, value))) > 1:
            return f"{setting} differs between layers; llama.cpp has one for all."
    if configuration.integer("shared_experts") != 1:
        return "num_shared_expert is not 1, and transformers has one shared expert."
    if configuration.integer("expert_width") != configuration.integer("intermediate_size"):
        return "moe_intermediate_size is not intermediate_size, which transformers takes for both."
    return None


ARCHITECTURE = Architecture(
    classes=("HunYuanMoEV1ForCausalLM",),
    model_types=("hunyuan_v1_moe",),
    gguf_name="hunyuan-moe",
    layers=every_layer(
        ATTENTION_NORM,
        ATTENTION,
        QUERY_KEY_NORMS,
        FFN_NORM,
        layer("mlp.gate.wg.weight", "ffn_gate_inp.weight", "experts width"),
        routed_experts(),
        shared_experts("mlp.shared_mlp"),
    ),
    lengths={"shared_ffn": lambda model: model.number("expert_shared_feed_forward_length")},
    metadata_keys=METADATA
    | RMS_NORM
    | POSITIONS
    | {
        "expert_count": "num_experts",
        "expert_used_count": "experts_per_token",
        "expert_feed_forward_length": "expert_width",
        "expert_shared_count": "shared_experts",
        "expert_shared_feed_forward_length": "intermediate_size",
    },
    restored=lambda stated: hunyuan_dense.restored(stated) | {"moe_topk": stated["expert_used_count"]},
    defaults={
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-5,
        "experts_per_token": of_every_layer("moe_topk", 1),
        "expert_width": lambda configuration: of_every_layer(
            "moe_intermediate_size", configuration.integer("intermediate_size")
        )(configuration),
        "shared_experts": of_every_layer("num_shared_expert", 1),
    },
    fixed={"hidden_act": SILU, "attention_bias": (False,)},
    checks=(hunyuan_dense.scaling_has_an_alpha, all_layers_alike),
    rope_types=frozenset({"default", "dynamic"}),
)
