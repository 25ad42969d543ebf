"""Parts of layers that Gemma 2 and 3 share: norms before and after each half, stored minus one."""

from __future__ import annotations

from dataclasses import replace

from thriftbit.sources.architectures import rows
from thriftbit.sources.architectures.kinds import Kind, layer_of
from thriftbit.sources.architectures.llama_like import GATED_FFN
from thriftbit.sources.architectures.rows import Row, norm
from thriftbit.sources.architectures.transforms import ADD_ONE

GELU_TANH = ("gelu_pytorch_tanh",)


def gemma_norm(source: str, target: str, shape: str = "width") -> Row:
    return norm(source, target, shape, ADD_ONE)


FIRST_NORM = gemma_norm("input_layernorm", "attn_norm")
QUERY_KEY_NORMS = Kind(
    (
        gemma_norm("self_attn.q_norm", "attn_q_norm", "head"),
        gemma_norm("self_attn.k_norm", "attn_k_norm", "head"),
    )
)
AFTER_ATTENTION = layer_of(
    gemma_norm("post_attention_layernorm", "post_attention_norm"),
    gemma_norm("pre_feedforward_layernorm", "ffn_norm"),
    GATED_FFN,
    gemma_norm("post_feedforward_layernorm", "post_ffw_norm"),
)
FINAL_NORM = replace(rows.FINAL_NORM, transform=ADD_ONE)
