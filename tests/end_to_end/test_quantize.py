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
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.presets import PRESETS
from thriftbit.quantization.quantize import quantize
from thriftbit.runtime.engine import Engine
from thriftbit.sources.model import Model
from thriftbit.sources.open_model import open_model

ROOT = Path(__file__).parents[2]
WIDTH, FFN, VALUES, LAYERS, VOCABULARY = 256, 512, 128, 3, 257


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A tiny Llama with random weights, as a folder on disk"""
    folder = tmp_path_factory.mktemp("tiny-llama")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": FFN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 256,
        "eos_token_id": 256,
    }
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {
        "self_attn.q_proj": (WIDTH, WIDTH),
        "self_attn.k_proj": (VALUES, WIDTH),
        "self_attn.v_proj": (VALUES, WIDTH),
        "self_attn.o_proj": (WIDTH, WIDTH),
        "mlp.gate_proj": (FFN, WIDTH),
        "mlp.up_proj": (FFN, WIDTH),
        "mlp.down_proj": (WIDTH, FFN),
    }
    random = np.random.default_rng(0)
    weights = {
        f"model.layers.{layer}.{name}.weight": random.standard_normal(shape, np.float32) / np.float32(16)
        for layer in range(LAYERS)
        for name, shape in shapes.items()
    }
    weights |= {
        f"model.layers.{layer}.{name}.weight": np.ones(WIDTH, np.float32)
        for layer in range(LAYERS)
        for name in ("input_layernorm", "post_attention_layernorm")
    }
    weights["model.norm.weight"] = np.ones(WIDTH, np.float32)
    weights["model.embed_tokens.weight"] = random.standard_normal((VOCABULARY, WIDTH), np.float32)
    weights["lm_head.weight"] = random.standard_normal((VOCABULARY, WIDTH), np.float32) / np.float32(16)
    save_file(weights, folder / "model.safetensors")

    alphabet = {character: number for number, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"})
    )
    return open_model(folder)


@pytest.mark.parametrize("preset", PRESETS)
def test_llama_cpp_runs_every_preset(model: Model, tmp_path: Path, preset: str) -> None:
    plan = make_plan(model, preset)
    path = quantize(model, plan, tmp_path / f"tiny-{preset}.gguf").path
    assert {t.name: t.tensor_type.name for t in gguf.GGUFReader(path).tensors} == dict(plan.formats)
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
    """The benchmark, small: a model four times the size, in the same memory"""
    peaks = []
    for size_gb in ("0.1", "0.4"):
        command = [sys.executable, str(ROOT / "benchmarks" / "memory.py"), "--size-gb", size_gb, "--to", "Q8_0"]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        peaks.append(max(row["peak_bytes"] for row in json.loads(result.stdout.splitlines()[-1])["rows"]))
    assert peaks[1] < peaks[0] + 50e6
    assert peaks[1] < 400e6
