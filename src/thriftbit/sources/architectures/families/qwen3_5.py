"""Qwen 3.5, 3.6 and 3.8, dense: gated delta nets, and gated attention in every fourth layer. Only the text part of
multimodal models is taken. Behind the last layer there may be one that guesses the token after the next."""

from thriftbit.sources.architectures import delta_net
from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.delta_net import DELTA_NET, GATED_ATTENTION, shifted_norm
from thriftbit.sources.architectures.kinds import layer_of
from thriftbit.sources.architectures.llama_like import GATED_FFN, METADATA, RMS_NORM, SILU
from thriftbit.sources.architectures.rows import HEAD

FIRST_NORM = shifted_norm("input_layernorm", "attn_norm")
FEED_FORWARD = layer_of(shifted_norm("post_attention_layernorm", "post_attention_norm"), GATED_FFN)

ARCHITECTURE = Architecture(
    classes=("Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM"),
    model_types=("qwen3_5_text", "qwen3_5"),
    gguf_name="qwen35",
    layers=delta_net.layers(
        linear=layer_of(FIRST_NORM, DELTA_NET, FEED_FORWARD),
        full=layer_of(FIRST_NORM, GATED_ATTENTION, FEED_FORWARD),
    ),
    after=(delta_net.FINAL_NORM, HEAD),
    lengths=delta_net.LENGTHS,
    metadata_keys=METADATA | RMS_NORM | delta_net.METADATA | {"rope.dimension_sections": delta_net.sections},
    restored=delta_net.restored,
    defaults=delta_net.DEFAULTS | {"tie_word_embeddings": False, "rms_norm_eps": 1e-6, "rope_theta": 10000.0},
    fixed={"hidden_act": SILU, "attention_bias": (False,), "attn_output_gate": (True,)},
    checks=(delta_net.computes_the_same,),
    rope_types=frozenset({"default", "yarn"}),
    rotates_parts=True,
    next_token_key="mtp_num_hidden_layers",
)
