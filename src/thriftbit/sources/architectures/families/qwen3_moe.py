"""Qwen 3 with experts in every layer."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.llama_like import (
    ATTENTION,
    ATTENTION_NORM,
    FFN_NORM,
    FINAL_NORM,
    HEAD,
    METADATA,
    QUERY_KEY_NORMS,
    RMS_NORM,
    SILU,
    TOKEN_EMBEDDING,
    layer,
)
from thriftbit.sources.architectures.transforms import STACK

EXPERTS = (
    layer("mlp.gate.weight", "ffn_gate_inp.weight", "experts width"),
    layer("mlp.experts.{expert}.gate_proj.weight", "ffn_gate_exps.weight", "expert_ffn width", STACK),
    layer("mlp.experts.{expert}.up_proj.weight", "ffn_up_exps.weight", "expert_ffn width", STACK),
    layer("mlp.experts.{expert}.down_proj.weight", "ffn_down_exps.weight", "width expert_ffn", STACK),
)

ARCHITECTURE = Architecture(
    classes=("Qwen3MoeForCausalLM",),
    model_types=("qwen3_moe",),
    gguf_name="qwen3moe",
    rows=(TOKEN_EMBEDDING, ATTENTION_NORM, *ATTENTION, *QUERY_KEY_NORMS, FFN_NORM, *EXPERTS, FINAL_NORM, HEAD),
    metadata_keys=METADATA
    | RMS_NORM
    | {
        "expert_count": "num_local_experts",
        "expert_used_count": "num_experts_per_tok",
        "expert_feed_forward_length": "moe_intermediate_size",
    },
    aliases={"num_experts": "num_local_experts"},
    defaults={
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-6,
        "norm_topk_prob": False,
        "use_sliding_window": False,
    },
    fixed={"hidden_act": SILU, "norm_topk_prob": (True,), "decoder_sparse_step": (1,), "mlp_only_layers": ([],)},
)
