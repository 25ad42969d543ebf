"""LFM2 with experts (8B-A1B): LFM2's layers, and experts in all but the first ones, each with a sigmoid gate."""

from collections.abc import Mapping
from typing import Any

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import heads_fill_width, some_layer_is_recurrent
from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.architectures.families import lfm2
from thriftbit.sources.architectures.kinds import Kind, layer_of
from thriftbit.sources.architectures.llama_like import EXPERTS_METADATA, SIGMOID, routed_experts
from thriftbit.sources.architectures.rows import layer

EXPERTS = layer_of(
    layer("feed_forward.gate.weight", "ffn_gate_inp.weight", "experts width"),
    layer("feed_forward.expert_bias", "exp_probs_b.bias", "experts"),
    routed_experts("feed_forward", gate="w1", up="w3", down="w2", source="feed_forward"),
)


def layers(model: Dimensions) -> list[Kind]:
    dense = model.number("leading_dense_block_count", 0, least=0)
    return [
        lfm2.layer_with(model, number, lfm2.DENSE if number < dense else EXPERTS) for number in range(model.all_layers)
    ]


def restored(stated: Mapping[str, Any]) -> dict[str, Any]:
    settings = lfm2.restored(stated)
    return {name: settings[name] for name in ("layer_types", "num_key_value_heads", "intermediate_size")}


ARCHITECTURE = Architecture(
    classes=("Lfm2MoeForCausalLM",),
    model_types=("lfm2_moe",),
    gguf_name="lfm2moe",
    layers=layers,
    after=lfm2.ARCHITECTURE.after,
    lengths=lfm2.ARCHITECTURE.lengths,
    metadata_keys={
        **lfm2.ARCHITECTURE.metadata_keys,
        **EXPERTS_METADATA,
        "feed_forward_length": "intermediate_size",
        "expert_feed_forward_length": "moe_intermediate_size",
        "expert_gating_func": lambda configuration: SIGMOID,
        "leading_dense_block_count": "num_dense_layers",
    },
    restored=restored,
    aliases={"num_experts": "num_local_experts", "tie_embedding": "tie_word_embeddings"},
    defaults={"tie_word_embeddings": True, "norm_eps": 1e-5, "conv_L_cache": 3, "num_dense_layers": 2},
    fixed={
        "conv_bias": (False,),
        "use_expert_bias": (True,),
        "norm_topk_prob": (True,),
        "routed_scaling_factor": (1.0, 1),
    },
    checks=(heads_fill_width, some_layer_is_recurrent("conv")),
    rope_types=frozenset({"default"}),
)
