from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from thriftbit.sources.model import Model
from thriftbit.sources.tensor import FloatArray, Tensor

TensorMaker = Callable[..., Tensor]


def tensor_of(name: str, values: FloatArray, role: str = "") -> Tensor:
    rows = values.reshape(-1, values.shape[-1])
    return Tensor(name, values.shape, "F32", lambda start, stop: rows[start:stop].copy(), role)


@pytest.fixture
def make_tensor() -> TensorMaker:
    return tensor_of


@pytest.fixture
def model() -> Model:
    """A mixture of two experts in one layer, in no particular architecture's exact shape"""
    random = np.random.default_rng(0)
    shapes = {
        "token_embd.weight": ((40, 256), "embedding"),
        "output.weight": ((40, 256), "output"),
        "output_norm.weight": ((256,), "norm"),
        "blk.0.attn_q.weight": ((64, 256), "attention-query"),
        "blk.0.attn_v.weight": ((32, 256), "attention-value"),
        "blk.0.ffn_gate_inp.weight": ((2, 256), "router"),
        "blk.0.ffn_down_exps.weight": ((2, 64, 256), "ffn-down"),
    }
    tensors = [
        tensor_of(name, random.standard_normal(shape, np.float32), role) for name, (shape, role) in shapes.items()
    ]
    metadata = {
        "llama.block_count": np.uint32(1),
        "llama.expert_count": np.uint32(2),
        "llama.attention.head_count": np.uint32(4),
        "llama.attention.head_count_kv": np.uint32(2),
        "general.name": "tiny",
    }
    return Model("llama", metadata, tuple(tensors), "tiny")
