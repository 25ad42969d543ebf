"""DeepSeek V3 and R1, Kimi K2, Moonlight: latent attention, and groups of experts in all layers but the first ones."""

from collections.abc import Collection, Mapping
from typing import Any

from thriftbit.sources.architectures import latent
from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.architectures.llama_like import METADATA, RMS_NORM, SIGMOID, SILU

GLM_VOCABULARY = 154880  # by this number llama.cpp recognises GLM-4.7-Flash, which has the same GGUF name


def _notes(configuration: Configuration) -> Collection[str]:
    if not configuration.get("num_nextn_predict_layers"):
        return ()
    return (
        "The file has no layer that guesses the token after the next (MTP): "
        "llama.cpp's converter leaves it out for this family.",
    )


def _restored(stated: Mapping[str, Any]) -> Mapping[str, Any]:
    groups = {"n_group": stated.get("expert_group_count", 1), "topk_group": stated.get("expert_group_used_count", 1)}
    return {**latent.restored(stated), **latent.yarn_restored(stated), **groups}


def _recognised(model: Dimensions) -> bool:
    sigmoid = model.number("expert_gating_func", 0, least=0) == SIGMOID
    return sigmoid and not model.next_token_layers and model.vocabulary != GLM_VOCABULARY


ARCHITECTURE = Architecture(
    classes=("DeepseekV3ForCausalLM",),
    model_types=("deepseek_v3", "kimi_k2"),
    gguf_name="deepseek2",
    layers=latent.layers(latent.ROUTER_BIAS),
    lengths=latent.LENGTHS,
    metadata_keys=METADATA
    | RMS_NORM
    | latent.METADATA
    | latent.YARN_METADATA
    | {"expert_gating_func": lambda configuration: SIGMOID},
    optional_metadata_keys=latent.OPTIONAL_METADATA,
    restored=_restored,
    aliases={"qk_rope_head_dim": "head_dim"},
    defaults={
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-6,
        "first_k_dense_replace": 3,
        "routed_scaling_factor": 2.5,
        "norm_topk_prob": True,
        "n_shared_experts": 1,
        "n_group": 8,
        "topk_group": lambda configuration: min(4, configuration.integer("n_group")),
    },
    fixed={
        "hidden_act": SILU,
        "attention_bias": (False,),
        "rope_interleave": (True,),
        "topk_method": ("noaux_tc",),
        "scoring_func": ("sigmoid",),
        "moe_layer_freq": (1,),
    },
    checks=(latent.query_rank_is_read, latent.yarn_keeps_the_magnitude, latent.groups_are_chosen),
    notes=_notes,
    rope_types=frozenset({"default", "yarn"}),
    rotates_parts=True,
    recognised=_recognised,
    drops_layers_behind=True,
)
