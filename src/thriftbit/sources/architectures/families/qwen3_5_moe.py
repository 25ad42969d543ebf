"""Qwen 3.5 and 3.6 with experts: gated delta nets, gated attention in every fourth layer. Only the text part of
multimodal models is taken."""

from thriftbit.sources.architectures import delta_net
from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.delta_net import DELTA_NET, EXPERTS, GATED_ATTENTION, shifted_norm
from thriftbit.sources.architectures.kinds import layer_of
from thriftbit.sources.architectures.llama_like import METADATA, RMS_NORM, SILU
from thriftbit.sources.architectures.rows import HEAD

FIRST_NORM = shifted_norm("input_layernorm", "attn_norm")
FEED_FORWARD = layer_of(shifted_norm("post_attention_layernorm", "post_attention_norm"), EXPERTS)
WITHOUT_FFN = {key: setting for key, setting in METADATA.items() if key != "feed_forward_length"}

ARCHITECTURE = Architecture(
    classes=("Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM"),
    model_types=("qwen3_5_moe_text", "qwen3_5_moe"),
    gguf_name="qwen35moe",
    layers=delta_net.layers(
        linear=layer_of(FIRST_NORM, DELTA_NET, FEED_FORWARD),
        full=layer_of(FIRST_NORM, GATED_ATTENTION, FEED_FORWARD),
    ),
    after=(delta_net.FINAL_NORM, HEAD),
    lengths=delta_net.LENGTHS,
    metadata_keys=WITHOUT_FFN
    | RMS_NORM
    | delta_net.EXPERTS_METADATA
    | delta_net.METADATA
    | {"rope.dimension_sections": delta_net.sections},
    optional_metadata_keys={"feed_forward_length": "intermediate_size"},
    restored=delta_net.restored,
    aliases={"num_experts": "num_local_experts"},
    defaults=delta_net.DEFAULTS | {"tie_word_embeddings": False, "rms_norm_eps": 1e-6, "norm_topk_prob": True},
    fixed={
        "hidden_act": SILU,
        "attention_bias": (False,),
        "norm_topk_prob": (True,),
        "attn_output_gate": (True,),
    },
    checks=(delta_net.computes_the_same,),
    rope_types=frozenset({"default", "yarn"}),
    rotates_parts=True,
    next_token_key="mtp_num_hidden_layers",
)
