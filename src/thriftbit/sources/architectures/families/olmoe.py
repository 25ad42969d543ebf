"""OLMoE: experts in every layer, and norms over whole projections of queries and keys."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import heads_fill_width
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.architectures.kinds import every_layer
from thriftbit.sources.architectures.llama_like import (
    ATTENTION,
    ATTENTION_NORM,
    EXPERTS_METADATA,
    FFN_NORM,
    METADATA,
    RMS_NORM,
    ROUTER,
    SILU,
    routed_experts,
)
from thriftbit.sources.architectures.rows import norm


def keys_fill_width(configuration: Configuration, model: Dimensions) -> str | None:
    if model.key_value == model.width:
        return None
    return "llama.cpp normalises keys of this family only where there are as many key-value heads as heads."


def nothing_clipped(configuration: Configuration, model: Dimensions) -> str | None:
    if configuration.get("clip_qkv") is None:
        return None
    return "clip_qkv is set, and llama.cpp clips nothing in this family."


ARCHITECTURE = Architecture(
    classes=("OlmoeForCausalLM",),
    model_types=("olmoe",),
    gguf_name="olmoe",
    layers=every_layer(
        ATTENTION_NORM,
        ATTENTION,
        norm("self_attn.q_norm", "attn_q_norm", "query"),
        norm("self_attn.k_norm", "attn_k_norm", "key_value"),
        FFN_NORM,
        ROUTER,
        routed_experts(),
    ),
    metadata_keys=METADATA | RMS_NORM | EXPERTS_METADATA,
    aliases={"num_experts": "num_local_experts"},
    defaults={"tie_word_embeddings": False, "rms_norm_eps": 1e-5, "norm_topk_prob": False},
    fixed={"hidden_act": SILU, "norm_topk_prob": (False,), "attention_bias": (False,)},
    checks=(heads_fill_width, keys_fill_width, nothing_clipped),
    copies_tied=True,
)
