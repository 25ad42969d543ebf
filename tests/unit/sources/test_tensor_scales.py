"""Scales of whole matrices, beside the blocks of a GGUF: kept by views that keep rows, joined and taken apart."""

from __future__ import annotations

import numpy as np
import pytest

from thriftbit.formats.nvfp4 import decode
from thriftbit.sources.tensor import FloatArray, SameRows, Tensor
from thriftbit.sources.tensor_scales import can_be_apart, scales_apart, with_scales_joined
from thriftbit.sources.views import concatenated, constant, multiplied_by, reordered, stacked

ROWS, WIDTH = 6, 64


def matrix(name: str, scale: float, seed: int = 0) -> Tensor:
    """A matrix that NVFP4 holds, multiplied by a scale"""
    blocks = np.random.default_rng(seed).integers(1, 120, (ROWS, 36)).astype(np.uint8)
    same = SameRows(lambda a, b: decode(blocks[a:b]), lambda: "NVFP4", lambda a, b: blocks[a:b])
    return multiplied_by(Tensor(name, (ROWS, WIDTH), "F32", same), lambda a, b: np.full((b - a, 1), scale, np.float32))


def put_together(tensors: tuple[Tensor, ...]) -> FloatArray:
    (joined,) = with_scales_joined(tensors)
    return joined.load()


def test_apart_and_together_again() -> None:
    tensor = matrix("blk.0.attn_q.weight", 0.37)
    bare, scale = scales_apart(tensor)
    assert (scale.name, scale.shape, scale.load().tolist()) == ("blk.0.attn_q.scale", (1,), [[np.float32(0.37)]])
    np.testing.assert_array_equal(bare.load() * np.float32(0.37), tensor.load())
    np.testing.assert_array_equal(put_together((bare, scale)), tensor.load())


def test_experts_have_a_scale_each_and_rows_may_change_their_order() -> None:
    experts = [reordered(matrix("", scale, i), np.arange(ROWS)[::-1].copy()) for i, scale in enumerate((0.5, 3.0, 7.0))]
    tensor = stacked(experts).renamed("blk.3.ffn_up_exps.weight")
    bare, scale = scales_apart(tensor)
    assert can_be_apart(tensor, {tensor.name}) and scale.load()[0].tolist() == [0.5, 3.0, 7.0]
    np.testing.assert_array_equal(put_together((bare, scale)), tensor.load())


@pytest.mark.parametrize(
    ("tensor", "others"),
    [
        (concatenated([matrix("", 0.5), matrix("", 0.6)]).renamed("blk.0.attn_qkv.weight"), set()),
        (matrix("output.weight", 0.5), set()),
        (matrix("blk.0.ffn_up.weight", 0.5), {"blk.0.ffn_up.bias"}),
    ],
    ids=["two scales in one matrix", "no layer's", "with a bias"],
)
def test_what_llama_cpp_would_not_multiply_stays_whole(tensor: Tensor, others: set[str]) -> None:
    assert not can_be_apart(tensor, {tensor.name, *others})


def test_a_scale_of_another_kind_is_left_alone() -> None:
    plain = Tensor("blk.0.attn_q.weight", (ROWS, WIDTH), "F32", lambda a, b: np.ones((b - a, WIDTH), np.float32))
    scales = constant("blk.0.attn_q.scale", np.ones(5, np.float32))
    assert with_scales_joined((plain, scales)) == (plain, scales)
    assert put_together((plain, constant("blk.0.attn_q.scale", np.full(1, 2, np.float32)))).max() == 2
