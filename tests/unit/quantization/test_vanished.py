"""Weights too small for a format become zero, and that is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from conftest import RunThriftbit
from thriftbit import open_model, quantize
from thriftbit.formats import FORMATS, format_named
from thriftbit.quantization.plan import Plan
from thriftbit.quantization.vanished import count_vanished, vanishing_size

SMALL = "model.layers.1.mlp.down_proj.weight"


@pytest.mark.parametrize("name", ["F16", "Q8_0", "Q6_K", "Q5_0", "Q4_K", "Q4_1", "IQ4_XS", "Q3_K", "Q2_K"])
def test_blocks_of_which_nothing_is_left_are_counted(name: str) -> None:
    format = format_named(name)
    random = np.random.default_rng(1)
    rows = random.standard_normal((4, 512)).astype(np.float32)
    rows[1] *= np.float32(1e-12)
    rows[2] = 0.0
    encoded = format.encode(rows)
    assert not format.decode(encoded)[1].any()
    assert count_vanished(format, rows, encoded) == 512
    assert 0 < vanishing_size(name) < 1e-2


def test_formats_with_the_exponents_of_float32_lose_nothing() -> None:
    for name in ("F32", "BF16"):
        assert vanishing_size(name) == 0.0
    for name, format in FORMATS.items():
        if format.can_encode and name not in ("NVFP4",):
            assert vanishing_size(name) < 0.02, name  # trained weights are larger


def test_the_end_of_quantize_tells_it(tiny_llama: Path, tmp_path: Path, run_thriftbit: RunThriftbit) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    for file in tiny_llama.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    weights[SMALL][:128] *= np.float32(1e-9)
    save_file(weights, folder / "model.safetensors")
    result = run_thriftbit("quantize", folder, "--to", "Q8_0", "-o", "q8.gguf")
    assert (
        "weights are too small for their format and became zero: blk.1.ffn_down.weight (50.0% of it)" in result.stdout
    )
    assert "--to BF16" in result.stdout
    document = json.loads(run_thriftbit("quantize", folder, "--to", "Q4_K_M", "-o", "q4.gguf", "--json").stdout)
    assert document["vanished"] == {"blk.1.ffn_down.weight": 0.5}
    model = open_model(folder)
    kept = Plan(
        {t.name: "BF16" if t.name == "blk.1.ffn_down.weight" else "F32" for t in model.tensors}, "custom", "test"
    )
    assert quantize(model, kept, tmp_path / "kept.gguf").vanished == {}
