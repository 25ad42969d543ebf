"""Qwen 3 with experts in every layer."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.kinds import every_layer
from thriftbit.sources.architectures.llama_like import (
    ATTENTION,
    ATTENTION_NORM,
    EXPERTS_METADATA,
    FFN_NORM,
    METADATA,
    QUERY_KEY_NORMS,
    RMS_NORM,
    ROUTER,
    SILU,
    routed_experts,
)

ARCHITECTURE = Architecture(
    classes=("Qwen3MoeForCausalLM",),
    model_types=("qwen3_moe",),
    gguf_name="qwen3moe",
    layers=every_layer(ATTENTION_NORM, ATTENTION, QUERY_KEY_NORMS, FFN_NORM, ROUTER, routed_experts()),
    metadata_keys=METADATA | RMS_NORM | EXPERTS_METADATA | {"expert_feed_forward_length": "moe_intermediate_size"},
    aliases={"num_experts": "num_local_experts"},
    defaults={
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-6,
        "norm_topk_prob": False,
        "use_sliding_window": False,
    },
    fixed={"hidden_act": SILU, "norm_topk_prob": (True,), "decoder_sparse_step": (1,), "mlp_only_layers": ([],)},
)
