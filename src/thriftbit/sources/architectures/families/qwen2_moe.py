"""Qwen 1.5 and 2 with experts: Qwen 2's attention, routed experts, and one expert that every token uses."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import heads_fill_width
from thriftbit.sources.architectures.kinds import every_layer
from thriftbit.sources.architectures.llama_like import (
    ATTENTION,
    ATTENTION_NORM,
    EXPERTS_METADATA,
    FFN_NORM,
    METADATA,
    QUERY_KEY_VALUE_BIASES,
    RMS_NORM,
    ROUTER,
    SILU,
    routed_experts,
    shared_experts,
)
from thriftbit.sources.architectures.rows import layer

ARCHITECTURE = Architecture(
    classes=("Qwen2MoeForCausalLM",),
    model_types=("qwen2_moe",),
    gguf_name="qwen2moe",
    layers=every_layer(
        ATTENTION_NORM,
        ATTENTION,
        QUERY_KEY_VALUE_BIASES,
        FFN_NORM,
        ROUTER,
        routed_experts(),
        layer("mlp.shared_expert_gate.weight", "ffn_gate_inp_shexp.weight", "1 width"),
        shared_experts("mlp.shared_expert"),
    ),
    lengths={"shared_ffn": lambda model: model.number("expert_shared_feed_forward_length")},
    metadata_keys=METADATA
    | RMS_NORM
    | EXPERTS_METADATA
    | {
        "expert_feed_forward_length": "moe_intermediate_size",
        "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    },
    aliases={"num_experts": "num_local_experts"},
    defaults={
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-6,
        "norm_topk_prob": False,
        "use_sliding_window": False,
        "qkv_bias": True,
    },
    fixed={
        "hidden_act": SILU,
        "norm_topk_prob": (False,),
        "decoder_sparse_step": (1,),
        "mlp_only_layers": ([],),
        "qkv_bias": (True,),
    },
    checks=(heads_fill_width,),
    copies_tied=True,
)
