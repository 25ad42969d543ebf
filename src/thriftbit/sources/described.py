"""Families that are described but not converted: their tables say what there is, so that sizes and memory are known.

They are `Architecture` tables like those in `architectures/families/`, without what conversion takes. A model of one
of these families cannot be quantized by Thriftbit; whoever asks which precision fits still gets its parameters, its
size in its own format and its memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thriftbit.sources.architectures.architecture import Architecture, Row
from thriftbit.sources.architectures.llama_like import (
    ATTENTION,
    ATTENTION_NORM,
    FINAL_NORM,
    HEAD,
    METADATA,
    QUERY_KEY_VALUE_BIASES,
    RMS_NORM,
    TOKEN_EMBEDDING,
    layer,
    norm,
)
from thriftbit.sources.architectures.transforms import STACK


def _expert(name: str, target: str, shape: str, bias: str) -> tuple[Row, Row]:
    return (
        layer(f"mlp.experts.{{expert}}.{name}.weight", f"{target}.weight", shape, STACK),
        layer(f"mlp.experts.{name}_bias", f"{target}.bias", f"experts {bias}"),
    )


GPT_OSS = Architecture(
    classes=("GptOssForCausalLM",),
    model_types=("gpt_oss",),
    gguf_name="gpt-oss",
    rows=(
        TOKEN_EMBEDDING,
        ATTENTION_NORM,
        *ATTENTION,
        *QUERY_KEY_VALUE_BIASES,
        layer("self_attn.o_proj.bias", "attn_output.bias", "width"),
        layer("self_attn.sinks", "attn_sinks.weight", "heads"),
        norm("post_attention_layernorm", "post_attention_norm"),
        layer("mlp.router.weight", "ffn_gate_inp.weight", "experts width"),
        layer("mlp.router.bias", "ffn_gate_inp.bias", "experts"),
        *_expert("gate_proj", "ffn_gate_exps", "expert_ffn width", "expert_ffn"),
        *_expert("up_proj", "ffn_up_exps", "expert_ffn width", "expert_ffn"),
        *_expert("down_proj", "ffn_down_exps", "width expert_ffn", "width"),
        FINAL_NORM,
        HEAD,
    ),
    metadata_keys=METADATA
    | RMS_NORM
    | {
        "attention.sliding_window": "sliding_window",
        "expert_count": "num_local_experts",
        "expert_used_count": "num_experts_per_tok",
        "expert_feed_forward_length": "intermediate_size",
    },
    defaults={"tie_word_embeddings": False, "rms_norm_eps": 1e-5},
    rope_types=None,  # nothing that takes memory
)

DESCRIBED = (GPT_OSS,)


def find_described(config: Mapping[str, Any]) -> Architecture | None:
    """-> the description of the family that config.json names; None if there is none"""
    classes = config.get("architectures")
    named = classes[0] if isinstance(classes, list) and classes else None
    for architecture in DESCRIBED:
        if named in architecture.classes or (named is None and config.get("model_type") in architecture.model_types):
            return architecture
    return None
