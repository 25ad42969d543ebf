"""How much memory tasks take is known from shapes, before the work begins, and `--memory` is kept to."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from thriftbit.errors import ThriftbitError
from thriftbit.formats import format_named
from thriftbit.quantization.curvature import Curvature
from thriftbit.quantization.engine.memory import (
    Memory,
    calibration_needs,
    rounding_bytes,
    rounding_needs,
    tuning_needs,
)
from thriftbit.quantization.rounding import round_matrix
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import Tensor

GIB = 1 << 30


def nothing(start: int, stop: int) -> np.ndarray:
    raise AssertionError("no weight is read")


def model_of(layers: int, width: int, inner: int, vocabulary: int) -> Model:
    shapes = {"attn_q": (width, width), "attn_output": (width, width), "attn_k": (width // 8, width)}
    shapes |= {"attn_v": (width // 8, width), "ffn_gate": (inner, width), "ffn_up": (inner, width)}
    shapes["ffn_down"] = (width, inner)
    tensors = [Tensor("token_embd.weight", (vocabulary, width), "BF16", nothing)]
    tensors += [
        Tensor(f"blk.{layer}.{name}.weight", shape, "BF16", nothing)
        for layer in range(layers)
        for name, shape in shapes.items()
    ]
    return Model("llama", {}, tuple(tensors), "a model")


@pytest.mark.parametrize(("n", "width"), [(48, 2048), (768, 768), (1024, 256)])
@pytest.mark.parametrize("format_name", ["Q4_K", "Q3_K", "IQ4_NL"])
def test_rounding_takes_no_more_than_is_said(n: int, width: int, format_name: str) -> None:
    random, format = np.random.default_rng(0), format_named(format_name)
    weights = random.standard_normal((n, width)).astype(np.float32)
    blocks = format.encode(weights)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        moments = []
        for size in (width, n):
            vectors = random.standard_normal((32, size)).astype(np.float32)
            moments.append((vectors.T @ vectors + np.eye(size, dtype=np.float32)).astype(np.float32))
            moments[-1] += moments[-1].T.copy()
        round_matrix(weights, format, Curvature(*moments, tokens=1000.0), blocks, turns=1, spend=True)
        peak = tracemalloc.get_traced_memory()[1] - before + weights.nbytes
    finally:
        tracemalloc.stop()
    said = rounding_bytes(n, width)
    assert 0.7 * said < peak < said, f"{peak / said:.2f} of what is said"


def test_fewer_workers_need_less_and_what_does_not_fit_is_said() -> None:
    needs = rounding_needs(model_of(2, 4096, 14336, 1000).tensors[1:])
    allowed = needs.shared_bytes + 2 * needs.task_bytes
    assert Memory(allowed, True).workers(needs, 8, "rounding a model") == 2
    assert Memory(allowed - 1, True).workers(needs, 8, "rounding a model") == 1
    assert Memory(64 * GIB, True).workers(needs, 3, "rounding a model") == 3
    with pytest.raises(ThriftbitError, match=r"rounding a model takes about .* × .*--memory allows 1\.07 GB"):
        Memory(GIB, True).workers(needs, 8, "rounding a model")
    with pytest.raises(ThriftbitError, match="are free beside a reserve"):
        Memory(GIB, False).workers(needs, 8, "rounding a model")
    assert 0 < Memory.of(None).allowed_bytes < 1 << 50 and not Memory.of(None).asked
    assert Memory.of(8 * 10**9) == Memory(8 * 10**9, True)


def test_an_8b_is_calibrated_and_rounded_inside_8_gb() -> None:
    eight = model_of(32, 4096, 14336, 128256)
    for needs in (calibration_needs(eight, 20480, 512, 4096), rounding_needs(eight.tensors[1:])):
        assert Memory(8 * 10**9, True).workers(needs, 1, "an 8B") == 1
    kept = calibration_needs(eight, 20480, 512, 4096).kept_bytes
    assert kept < 2 * eight.size_bytes


def test_more_text_and_wider_layers_need_more() -> None:
    small, wide = model_of(4, 512, 1536, 1000), model_of(4, 1024, 3072, 1000)
    assert calibration_needs(wide, 1000, 100, 1024).task_bytes > calibration_needs(small, 1000, 100, 512).task_bytes
    one, two = (calibration_needs(small, tokens, 100, 512) for tokens in (1000, 2000))
    assert one.scratch_bytes < two.scratch_bytes and one.kept_bytes == two.kept_bytes
    assert tuning_needs(wide, 1000, 100, 10).shared_bytes > tuning_needs(small, 1000, 100, 10).shared_bytes
    one_layer = replace(small, tensors=small.tensors[:8])
    assert calibration_needs(one_layer, 1000, 100, 512).shared_bytes == one.shared_bytes
