"""DeepSeek V2-Lite and other models of the class that choose among all experts at once (topk_method "greedy").

The large V2 is refused: it chooses groups of experts by the best expert of each, and llama.cpp by the two best."""

from collections.abc import Mapping
from typing import Any

from thriftbit.sources.architectures import latent
from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.llama_like import METADATA, RMS_NORM, SILU

SOFTMAX = 1  # llama.cpp's number of the function that rates experts


def _restored(stated: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**latent.restored(stated), **latent.yarn_restored(stated)}


ARCHITECTURE = Architecture(
    classes=("DeepseekV2ForCausalLM",),
    model_types=("deepseek_v2",),
    gguf_name="deepseek2",
    layers=latent.layers(),
    lengths=latent.LENGTHS,
    metadata_keys=METADATA
    | RMS_NORM
    | latent.METADATA
    | latent.YARN_METADATA
    | {"expert_gating_func": lambda configuration: SOFTMAX},
    optional_metadata_keys=latent.OPTIONAL_METADATA,
    restored=_restored,
    aliases={"qk_rope_head_dim": "head_dim"},
    defaults={
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-6,
        "first_k_dense_replace": 0,
        "routed_scaling_factor": 1.0,
        "norm_topk_prob": False,
        "n_shared_experts": 2,
    },
    fixed={
        "hidden_act": SILU,
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "topk_method": ("greedy",),
        "scoring_func": ("softmax",),
        "n_group": (1,),
        "norm_topk_prob": (False,),
        "moe_layer_freq": (1,),
    },
    checks=(latent.query_rank_is_read, latent.yarn_keeps_the_magnitude),
    rope_types=frozenset({"default", "yarn"}),
    rotates_parts=True,
    recognised=lambda model: model.number("expert_gating_func", SOFTMAX, least=0) != 2,
)
