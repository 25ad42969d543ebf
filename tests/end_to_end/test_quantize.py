"""A model folder goes in, and a GGUF that unmodified llama.cpp loads and runs comes out, for every preset."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

from thriftbit.containers.gguf_reader import read_gguf
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.presets import PRESETS
from thriftbit.quantization.quantize import quantize
from thriftbit.runtime.engine import Engine
from thriftbit.sources.model import Model
from thriftbit.sources.open_model import open_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> Model:
    return open_model(tiny_llama)


@pytest.mark.parametrize("preset", PRESETS)
def test_llama_cpp_runs_every_preset(model: Model, tmp_path: Path, preset: str) -> None:
    plan = make_plan(model, preset)
    path = quantize(model, plan, tmp_path / f"tiny-{preset}.gguf", without_importance=True).path
    assert {t.name: t.ggml_type.name for t in read_gguf(path).tensors} == dict(plan.formats)
    with Engine(path, context_tokens=64, threads=1) as engine:
        generation = engine.generate("Hello", max_tokens=4, temperature=0)
    assert generation.prompt_tokens >= 5  # one for each byte
    assert generation.generated_tokens >= 1


def test_more_bits_are_closer_to_the_original(model: Model, tmp_path: Path) -> None:
    """Relative squared error over all weights, each preset against the source"""
    errors = []
    for preset in ("Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "F16", "F32"):
        path = quantize(model, make_plan(model, preset), tmp_path / f"{preset}.gguf").path
        error = total = 0.0
        for ours, theirs in zip(model.tensors, gguf.GGUFReader(path).tensors, strict=True):
            original = ours.load()
            decoded = gguf.quants.dequantize(theirs.data, theirs.tensor_type).reshape(original.shape)
            error += float(np.square(decoded - original).sum())
            total += float(np.square(original).sum())
        errors.append(error / total)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0


def test_memory_does_not_grow_with_the_model() -> None:
    """The benchmark, small and without much to encode: a model four times the size, in the same memory"""
    peaks = []
    for size_gb in ("0.1", "0.4"):
        command = [sys.executable, str(ROOT / "benchmarks" / "memory.py"), "--size-gb", size_gb, "--to", "BF16"]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        peaks.append(max(row["peak_bytes"] for row in json.loads(result.stdout.splitlines()[-1])["rows"]))
    assert peaks[1] < peaks[0] + 50e6
    assert peaks[1] < 300e6
