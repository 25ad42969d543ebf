"""Qwen3-Next and Qwen3-Coder-Next: gated delta nets, gated attention in every fourth layer, and experts in all."""

from thriftbit.sources.architectures import delta_net
from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.delta_net import DELTA_NET_BY_KEY_HEAD, EXPERTS, GATED_ATTENTION, shifted_norm
from thriftbit.sources.architectures.kinds import layer_of
from thriftbit.sources.architectures.llama_like import METADATA, RMS_NORM, SILU
from thriftbit.sources.architectures.rows import HEAD

FIRST_NORM = shifted_norm("input_layernorm", "attn_norm")
FEED_FORWARD = layer_of(shifted_norm("post_attention_layernorm", "post_attention_norm"), EXPERTS)
WITHOUT_FFN = {key: setting for key, setting in METADATA.items() if key != "feed_forward_length"}

ARCHITECTURE = Architecture(
    classes=("Qwen3NextForCausalLM",),
    model_types=("qwen3_next",),
    gguf_name="qwen3next",
    layers=delta_net.layers(
        linear=layer_of(FIRST_NORM, DELTA_NET_BY_KEY_HEAD, FEED_FORWARD),
        full=layer_of(FIRST_NORM, GATED_ATTENTION, FEED_FORWARD),
    ),
    after=(delta_net.FINAL_NORM, HEAD),
    lengths=delta_net.LENGTHS,
    metadata_keys=WITHOUT_FFN | RMS_NORM | delta_net.EXPERTS_METADATA | delta_net.METADATA,
    optional_metadata_keys={"feed_forward_length": "intermediate_size"},
    restored=delta_net.restored,
    aliases={"num_experts": "num_local_experts"},
    defaults=delta_net.DEFAULTS | {"tie_word_embeddings": False, "rms_norm_eps": 1e-6, "norm_topk_prob": True},
    fixed={
        "hidden_act": SILU,
        "attention_bias": (False,),
        "norm_topk_prob": (True,),
        "decoder_sparse_step": (1,),
        "mlp_only_layers": ([],),
    },
    checks=(delta_net.delta_nets_agree,),
    rope_types=frozenset({"default", "yarn"}),
    rotates_parts=True,
    next_token_key="mtp_num_hidden_layers",
)
