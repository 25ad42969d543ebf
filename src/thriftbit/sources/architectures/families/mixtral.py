"""Mixtral: Llama's attention, and experts with a router in place of the feed-forward network."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.kinds import every_layer
from thriftbit.sources.architectures.llama_like import (
    ATTENTION_NORM,
    EXPERTS_METADATA,
    FFN_NORM,
    INTERLEAVED_ATTENTION,
    METADATA,
    RMS_NORM,
    SILU,
    routed_experts,
)
from thriftbit.sources.architectures.rope import WITH_FACTORS
from thriftbit.sources.architectures.rows import layer

ROUTER = layer(
    "mlp.gate.weight",
    "ffn_gate_inp.weight",
    "experts width",
    spellings=(("block_sparse_moe.gate.weight",),),
)
EXPERTS = routed_experts("block_sparse_moe", gate="w1", up="w3", down="w2")

ARCHITECTURE = Architecture(
    classes=("MixtralForCausalLM",),
    model_types=("mixtral",),
    gguf_name="llama",
    layers=every_layer(ATTENTION_NORM, INTERLEAVED_ATTENTION, FFN_NORM, ROUTER, EXPERTS),
    metadata_keys=METADATA | RMS_NORM | EXPERTS_METADATA,
    defaults={
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
    fixed={"hidden_act": SILU},
    rope_types=WITH_FACTORS,
    recognised=lambda model: model.experts > 0,
)
