"""One number by which a whole matrix is multiplied: a part of the weights here, a tensor of its own in a GGUF.

NVFP4 and BitNet checkpoints have such a scale for each matrix. GGML's blocks have no place for it, so llama.cpp keeps
it in `NAME.scale` beside `NAME.weight`: one number, or one for each expert. Here a tensor's weights are always
complete, and `SameRows.factors` remembers the scale. Reading a GGUF joins the two (`with_scales_joined`). Writing takes
them apart again where the blocks are carried over (`scales_apart`). Source: llama.cpp's `llama-model.cpp`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

import numpy as np

from thriftbit.sources.tensor import FloatArray, SameRows, Tensor
from thriftbit.sources.views import constant, multiplied_by

_WITH_SCALE = {
    *("attn_q", "attn_k", "attn_v", "attn_output", "attn_qkv", "attn_gate"),
    *("ffn_gate", "ffn_up", "ffn_down", "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"),
    *("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps", "ssm_in", "ssm_out", "ssm_alpha", "ssm_beta"),
}
"""The matrices of a layer whose product llama.cpp multiplies by `NAME.scale`, whatever the family."""


def scale_name(weight: str) -> str:
    """weight: GGUF's name of a matrix -> the name of the tensor with its scale"""
    return f"{weight.removesuffix('.weight')}.scale"


def with_scales_joined(tensors: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """tensors: of a GGUF, in its order -> the same, where each matrix with a scale is multiplied by it"""
    by_name = {tensor.name: tensor for tensor in tensors}
    scales = {
        tensor.name: by_name[scale_name(tensor.name)]
        for tensor in by_name.values()
        if _can_have_scale(tensor.name, by_name) and _fits(tensor, by_name.get(scale_name(tensor.name)))
    }
    joined = {scale.name for scale in scales.values()}
    return tuple(
        _joined(tensor, scales[tensor.name]) if tensor.name in scales else tensor
        for tensor in by_name.values()
        if tensor.name not in joined
    )


def can_be_apart(tensor: Tensor, names: Collection[str]) -> bool:
    """names: of all tensors of the model. Return whether blocks that lack the tensor's scale can hold it: there is no
    scale, or each matrix has one and llama.cpp multiplies by it."""
    if not isinstance(tensor.read, SameRows) or tensor.read.factors is None:
        return True
    return _can_have_scale(tensor.name, names) and _scales_of(tensor) is not None


def scales_apart(tensor: Tensor) -> tuple[Tensor, ...]:
    """Return the matrix without its scales, and a tensor of the scales, float32 (matrices,). A tensor that has none
    comes alone."""
    read, scales = tensor.read, _scales_of(tensor)
    if not isinstance(read, SameRows) or read.factors is None or scales is None:
        return (tensor,)
    bare = replace(tensor, read=SameRows(read.without_factors, read.format, read.blocks))
    return bare, constant(scale_name(tensor.name), scales).renamed(scale_name(tensor.name), "scale")


def _can_have_scale(weight: str, names: Collection[str]) -> bool:
    """llama.cpp refuses a scale in the feed-forward part where a bias is added too."""
    layer, _, leaf = weight.removesuffix(".weight").rpartition(".")
    has_bias = f"{layer}.{leaf}.bias" in names
    return layer.startswith("blk.") and leaf in _WITH_SCALE and not (has_bias and leaf.startswith("ffn"))


def _fits(tensor: Tensor, scale: Tensor | None) -> bool:
    if scale is None or tensor.undecoded is not None:
        return False
    return scale.parameters in (1, tensor.rows // tensor.matrix_rows)


def _joined(tensor: Tensor, scale: Tensor) -> Tensor:
    def factors(start: int, stop: int) -> FloatArray:
        values = scale.load().reshape(-1)
        matrices = np.arange(start, stop) // tensor.matrix_rows if len(values) > 1 else np.zeros(stop - start, int)
        return values[matrices, None]

    return multiplied_by(tensor, factors)


def _scales_of(tensor: Tensor) -> FloatArray | None:
    """Return float32 (matrices,), or None where rows of one matrix have several"""
    if not isinstance(tensor.read, SameRows) or tensor.read.factors is None:
        return None
    factors = tensor.read.factors(0, tensor.rows).reshape(-1, tensor.matrix_rows)
    return factors[:, 0].copy() if (factors == factors[:, :1]).all() else None
