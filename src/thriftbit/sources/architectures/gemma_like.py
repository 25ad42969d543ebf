"""Table rows that Gemma 2 and 3 share: norms before and after each half of a layer, stored as distances from one."""

from __future__ import annotations

from thriftbit.sources.architectures.architecture import Row
from thriftbit.sources.architectures.llama_like import GATED_FFN, norm
from thriftbit.sources.architectures.transforms import ADD_ONE

GELU_TANH = ("gelu_pytorch_tanh",)


def gemma_norm(source: str, target: str, shape: str = "width") -> Row:
    return norm(source, target, shape, ADD_ONE)


FIRST_NORM = gemma_norm("input_layernorm", "attn_norm")
AFTER_ATTENTION = (
    gemma_norm("post_attention_layernorm", "post_attention_norm"),
    gemma_norm("pre_feedforward_layernorm", "ffn_norm"),
    *GATED_FFN,
    gemma_norm("post_feedforward_layernorm", "post_ffw_norm"),
)
FINAL_NORM = Row("model.norm.weight", "output_norm.weight", "width", ADD_ONE)
