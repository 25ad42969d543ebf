"""MiniMax M2: experts in every layer, each with a sigmoid gate, and norms over whole projections of queries and
keys."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.architectures.families.mixtral import EXPERTS, ROUTER
from thriftbit.sources.architectures.kinds import every_layer
from thriftbit.sources.architectures.llama_like import (
    ATTENTION,
    ATTENTION_NORM,
    EXPERTS_METADATA,
    FFN_NORM,
    METADATA,
    RMS_NORM,
    SIGMOID,
    SILU,
)
from thriftbit.sources.architectures.rows import layer, norm

ROUTER_BIAS = layer(
    "mlp.e_score_correction_bias",
    "exp_probs_b.bias",
    "experts",
    spellings=(("block_sparse_moe.e_score_correction_bias",),),
)


def _rotated_fraction(configuration: Configuration) -> float:
    """Return the rotated fraction of each head. Older configurations give the number of rotated entries instead."""
    if configuration.get("rotary_dim") is None:
        return 1.0
    return configuration.integer("rotary_dim") / max(1, configuration.integer("head_dim"))


def _full_attention_everywhere(configuration: Configuration, model: Dimensions) -> str | None:
    everywhere = [1] * model.layers
    if configuration.get("attn_type_list", everywhere) == everywhere:
        return None
    return "attn_type_list has layers of linear attention, which llama.cpp does not compute for this family."


ARCHITECTURE = Architecture(
    classes=("MiniMaxM2ForCausalLM",),
    model_types=("minimax_m2",),
    gguf_name="minimax-m2",
    layers=every_layer(
        ATTENTION_NORM,
        ATTENTION,
        norm("self_attn.q_norm", "attn_q_norm", "query"),
        norm("self_attn.k_norm", "attn_k_norm", "key_value"),
        FFN_NORM,
        ROUTER,
        ROUTER_BIAS,
        EXPERTS,
    ),
    metadata_keys=METADATA
    | RMS_NORM
    | EXPERTS_METADATA
    | {
        "expert_feed_forward_length": "intermediate_size",
        "expert_gating_func": lambda configuration: SIGMOID,
    },
    aliases={"num_experts": "num_local_experts"},
    defaults={
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-6,
        "rope_theta": 5e6,
        "num_key_value_heads": 8,
        "partial_rotary_factor": _rotated_fraction,
    },
    fixed={
        "hidden_act": SILU,
        "use_qk_norm": (True,),
        "scoring_func": ("sigmoid",),
        "shared_intermediate_size": (0,),
    },
    checks=(_full_attention_everywhere,),
    copies_tied=True,
    rotates_parts=True,
)
