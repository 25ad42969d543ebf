"""Mixtral: Llama's attention, and in place of its feed-forward network several experts and a router."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import all_of_each_head_rotated
from thriftbit.sources.architectures.llama_like import (
    ATTENTION_NORM,
    FFN_NORM,
    FINAL_NORM,
    HEAD,
    INTERLEAVED_ATTENTION,
    METADATA,
    RMS_NORM,
    SILU,
    TOKEN_EMBEDDING,
    layer,
)
from thriftbit.sources.architectures.rope import WITH_FACTORS
from thriftbit.sources.architectures.transforms import STACK

EXPERTS = (
    layer("block_sparse_moe.gate.weight", "ffn_gate_inp.weight", "experts width"),
    layer("block_sparse_moe.experts.{expert}.w1.weight", "ffn_gate_exps.weight", "ffn width", STACK),
    layer("block_sparse_moe.experts.{expert}.w3.weight", "ffn_up_exps.weight", "ffn width", STACK),
    layer("block_sparse_moe.experts.{expert}.w2.weight", "ffn_down_exps.weight", "width ffn", STACK),
)

ARCHITECTURE = Architecture(
    classes=("MixtralForCausalLM",),
    model_types=("mixtral",),
    gguf_name="llama",
    rows=(TOKEN_EMBEDDING, ATTENTION_NORM, *INTERLEAVED_ATTENTION, FFN_NORM, *EXPERTS, FINAL_NORM, HEAD),
    metadata_keys=METADATA
    | RMS_NORM
    | {"expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"},
    defaults={
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
    fixed={"hidden_act": SILU},
    checks=(all_of_each_head_rotated,),
    rope_types=WITH_FACTORS,
)
