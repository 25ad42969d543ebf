"""Phi 3 and Phi 4 mini: query, key and value in one matrix, gate and up in another, and LongRoPE."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import heads_fill_width
from thriftbit.sources.architectures.kinds import Kind, every_layer
from thriftbit.sources.architectures.layer_cache import attention_cache
from thriftbit.sources.architectures.llama_like import (
    ATTENTION_NORM,
    ATTENTION_OUTPUT,
    FFN_NORM,
    METADATA,
    RMS_NORM,
    SILU,
)
from thriftbit.sources.architectures.rope import LONGROPE, PLAIN
from thriftbit.sources.architectures.rows import layer

ATTENTION = Kind(
    (layer("self_attn.qkv_proj.weight", "attn_qkv.weight", "qkv width"), ATTENTION_OUTPUT),
    attention_cache,
)
FFN = Kind(
    (
        layer("mlp.gate_up_proj.weight", "ffn_up.weight", "gate_up width"),
        layer("mlp.down_proj.weight", "ffn_down.weight", "width ffn"),
    )
)

ARCHITECTURE = Architecture(
    classes=("Phi3ForCausalLM",),
    model_types=("phi3",),
    gguf_name="phi3",
    layers=every_layer(ATTENTION_NORM, ATTENTION, FFN_NORM, FFN),
    metadata_keys=METADATA | RMS_NORM | {"attention.sliding_window": "sliding_window"},
    defaults={"tie_word_embeddings": False, "rms_norm_eps": 1e-5, "sliding_window": 0},  # 0 tells llama.cpp: no window
    fixed={"hidden_act": SILU},
    checks=(heads_fill_width,),
    rope_types=PLAIN | LONGROPE,
    rotates_parts=True,
)
