"""Calibration on families whose weights are reordered, joined or of several kinds: each matrix of the container is
found in transformers' network, in the order of rows and columns that it has in the container, and is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from thriftbit import make_plan, quantize
from thriftbit.containers.gguf_reader import read_gguf
from thriftbit.network import products
from thriftbit.network.configuration import configuration_of
from thriftbit.network.network import Network
from thriftbit.network.stored_parameters import stored_parameters
from thriftbit.network.weights import Weights
from thriftbit.quantization.calibration import calibrate_windows
from thriftbit.quantization.tuning import tune_in
from thriftbit.sources.model import Model

from .test_network import open_tiny
from .tiny_models import TINY_MODELS, VOCABULARY

# Lengths that blocks of 32 divide, and still no two heads alike
WIDER = {
    "hidden_size": 96,
    "intermediate_size": 64,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 64,
    "head_dim": 32,
    "global_head_dim": 64,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "hidden_size_per_layer_input": 32,
}
# The kind of matrix -> some that must be found, of layers that are told by what they have
FOUND = {
    "qwen3.5": (
        "blk.0.attn_qkv",
        "blk.0.attn_gate",
        "blk.1.ssm_out",
        "blk.1.ssm_beta",
        "blk.3.attn_q",
        "blk.3.ffn_down",
    ),
    "qwen3-next": ("blk.0.ssm_out", "blk.3.attn_q", "blk.0.ffn_gate_exps"),
    "gpt-oss": ("blk.0.attn_q", "blk.1.ffn_gate_exps", "blk.1.ffn_down_exps"),
    "glm4-moe-lite": ("blk.0.attn_q_a", "blk.0.attn_kv_a_mqa", "blk.1.attn_output", "blk.1.ffn_up_exps"),
    "deepseek-v3": (
        "blk.0.attn_q_b",
        "blk.0.ffn_down",
        "blk.1.attn_output",
        "blk.2.ffn_down_exps",
        "blk.2.ffn_up_shexp",
    ),
    "minimax-m2": ("blk.0.attn_q", "blk.1.attn_output", "blk.1.ffn_gate_exps", "blk.1.ffn_down_exps"),
    "ministral3": ("blk.0.attn_q", "blk.0.attn_k", "blk.1.ffn_down"),
    "gemma4-per-layer": ("blk.0.attn_k", "blk.2.ffn_down", "blk.1.inp_gate", "blk.6.attn_q"),
    "gemma4-experts": ("blk.0.attn_v", "blk.2.attn_k", "blk.0.ffn_gate_up_exps", "blk.0.ffn_down_exps"),
}
WINDOWS = np.random.default_rng(0).integers(3, VOCABULARY, (16, 24))


@pytest.fixture(params=list(FOUND))
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    torch.set_num_threads(1)
    monkeypatch.setattr(products, "_processor_has_them", lambda: False)
    return str(request.param)


@pytest.fixture
def model(name: str, tmp_path: Path) -> Model:
    (tiny,) = (tiny for tiny in TINY_MODELS if tiny.name == name)
    wide = {key: value for key, value in WIDER.items() if tiny.config.get(key)}
    if "mrope_section" in tiny.config["rope_parameters"]:
        del wide["head_dim"]  # the sections are as long as a head's frequencies
    return open_tiny(replace(tiny, config=tiny.config | wide), tmp_path / "model")


def test_a_parameter_lies_in_the_container_as_its_place_says(model: Model) -> None:
    network, weights = Network(configuration_of(model), torch.device("cpu")), Weights(model)
    tensors = {tensor.name: tensor for tensor in model.tensors}
    for parameter, place in stored_parameters(model, network).items():
        values = weights.load([parameter])[parameter].numpy()
        np.testing.assert_array_equal(
            values[place.order][:, place.columns], tensors[place.container_name].load(), parameter
        )


def test_every_kind_of_matrix_is_calibrated_and_tuned(name: str, model: Model, tmp_path: Path) -> None:
    calibration = calibrate_windows(model, WINDOWS, tmp_path / "calibration")
    known = calibration.names | calibration.experts
    assert {f"{matrix}.weight" for matrix in FOUND[name]} <= known
    plan = make_plan(model, "Q4_0")
    rounded = tune_in(model, plan, calibration, tmp_path / "tuned")
    result = quantize(model, plan, tmp_path / "tuned.gguf", calibration=calibration, rounded=rounded)
    written = {info.name: info.ggml_type.name for info in read_gguf(result.path).tensors}
    assert all(written[matrix] == plan.formats[matrix] for matrix in known)
