"""Weights on Q4_0's grid are found by their values, whatever 16 bits they were rounded to, and no others are."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from thriftbit.formats.q4_0_grid import q4_0_on_grid

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def rounded(values: NDArray[np.float32], dtype: str) -> NDArray[np.float32]:
    return torch.from_numpy(values).to(DTYPES[dtype]).float().numpy()


def on_grid(codes: NDArray[np.int64], dtype: str) -> NDArray[np.float32]:
    scales = np.random.default_rng(1).uniform(1e-4, 2, (len(codes), 1)).astype(np.float16).astype(np.float32)
    return rounded((codes * scales).astype(np.float32), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("low", "high"), [(-8, 8), (-7, 8), (-3, 4), (-1, 2), (0, 1), (-8, -7), (2, 6)])
def test_what_was_rounded_to_the_grid_comes_back(dtype: str, low: int, high: int) -> None:
    codes = np.random.default_rng(2).integers(low, high, (300, 32))
    weights = on_grid(codes, dtype)

    blocks, held = q4_0_on_grid(weights, dtype)

    assert held.all()
    decoded = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.Q4_0)
    np.testing.assert_array_equal(rounded(decoded, dtype), weights)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scales_as_models_have_them(dtype: str) -> None:
    weights = np.random.default_rng(5).standard_normal((20000, 32)).astype(np.float32) / 16
    scales = (np.abs(weights).max(axis=1, keepdims=True) / 7).astype(np.float16).astype(np.float32)
    assert q4_0_on_grid(rounded(np.clip(np.round(weights / scales), -8, 7) * scales, dtype), dtype)[1].all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_other_weights_are_not_on_it(dtype: str) -> None:
    weights = rounded(np.random.default_rng(3).standard_normal((500, 32)).astype(np.float32), dtype)
    assert not q4_0_on_grid(weights, dtype)[1].any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_weight_off_the_grid_is_enough(dtype: str) -> None:
    weights = on_grid(np.random.default_rng(4).integers(-8, 8, (50, 32)), dtype)
    weights[17, 3] = rounded(np.abs(weights[17]).max(keepdims=True) * np.float32(0.31), dtype)[0]

    held = q4_0_on_grid(weights, dtype)[1]

    assert not held[17] and held.sum() == 49
