from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from thriftbit.errors import ThriftbitError
from thriftbit.quantization.preset_names import preset_named
from thriftbit.quantization.presets import choose_formats, is_quantizable
from thriftbit.sources.model import Model


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("blk.0.attn_q.weight", (4, 32), True),
        ("blk.0.ffn_up_exps.weight", (2, 4, 32), True),
        ("blk.0.attn_q.weight", (1, 32), False),  # one row is one-dimensional to GGUF
        ("blk.0.attn_q.bias", (4, 32), False),
        ("blk.0.attn_q_norm.weight", (4, 32), False),
        ("blk.0.ffn_gate_inp.weight", (4, 32), False),
        ("position_embd.weight", (4, 32), False),
        ("blk.0.time_mix_w2.weight", (4, 32), False),
        ("blk.0.time_mix_w3.weight", (4, 32), True),
    ],
)
def test_what_is_quantized_at_all(
    make_tensor: Callable[..., Any], name: str, shape: tuple[int, ...], expected: bool
) -> None:
    assert is_quantizable(make_tensor(name, np.zeros(shape, np.float32))) is expected


@pytest.mark.parametrize("value", ["many", [], np.float32(4), np.array([], np.uint32)])
def test_metadata_that_is_no_number_is_told(model: Model, value: Any) -> None:
    damaged = replace(model, metadata={**model.metadata, "llama.block_count": value})
    with pytest.raises(ThriftbitError, match=r"llama\.block_count should be a whole number"):
        choose_formats(damaged, preset_named("Q8_0"))


def test_heads_may_differ_from_layer_to_layer(model: Model) -> None:
    by_layer = {"llama.attention.head_count_kv": np.array([2, 1], np.uint32)}
    formats = choose_formats(replace(model, metadata={**model.metadata, **by_layer}), preset_named("Q8_0"))
    assert formats == choose_formats(model, preset_named("Q8_0"))
