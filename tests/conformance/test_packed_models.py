"""Whole models that come packed: through the command line into a GGUF, whose weights are compared with the source's one
by one, and which llama.cpp runs."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from safetensors.torch import save_file

from thriftbit.runtime.engine import Engine
from thriftbit.sources.checkpoint import open_checkpoint
from thriftbit.sources.open_model import open_model

from .test_architectures import llama_cpp_logits, to_gguf
from .test_packed import convert_moe_packed_tensors
from .tiny_models import TINY_MODELS, reference_logits

RunThriftbit = Callable[..., "subprocess.CompletedProcess[str]"]
Stored = dict[str, torch.Tensor]
Pack = Callable[[str, torch.Tensor], Stored]
TOLERANCE = 2e-3  # of the logits' spread; llama.cpp multiplies MXFP4 with inputs in 8 bits
F16, BF16 = torch.float16, torch.bfloat16


def words(codes: torch.Tensor) -> torch.Tensor:
    """Whole numbers of 4 bits (n, width) -> int32 (n, width / 8)"""
    shifts = torch.arange(0, 32, 4, dtype=torch.int64)
    packed = (codes.to(torch.int64).reshape(len(codes), -1, 8) << shifts).sum(-1)
    return (packed - (packed >= 1 << 31) * (1 << 32)).to(torch.int32)


def symmetric(weight: torch.Tensor, group: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes from -8 to 7 (n, groups, group), scales (n, groups)."""
    groups = weight.reshape(len(weight), -1, group)
    scales = (groups.abs().amax(-1) / 7).to(dtype)
    return (groups / scales.float()[:, :, None]).round().clamp(-8, 7), scales


def int4(name: str, weight: torch.Tensor) -> Stored:
    codes, scales = symmetric(weight, 32, BF16)
    return {
        f"{name}.weight_packed": words(codes.reshape(weight.shape) + 8),
        f"{name}.weight_scale": scales,
        f"{name}.weight_shape": torch.tensor(weight.shape),
    }


def gptq(name: str, weight: torch.Tensor) -> Stored:
    codes, scales = symmetric(weight, 128, F16)
    order = torch.arange(weight.shape[1]) // 128
    return {
        f"{name}.qweight": words(codes.reshape(weight.shape) + 8).T,
        f"{name}.qzeros": torch.full((scales.shape[1], len(weight) // 8), 0x77777777, dtype=torch.int32),
        f"{name}.scales": scales.T,
        f"{name}.g_idx": order.to(torch.int32),
    }


def mlx(name: str, weight: torch.Tensor) -> Stored:
    groups = weight.reshape(len(weight), -1, 64)
    low = groups.amin(-1).to(BF16)
    scales = ((groups.amax(-1) - low.float()) / 15).to(BF16)
    codes = ((groups - low.float()[:, :, None]) / scales.float()[:, :, None]).round().clamp(0, 15)
    packed = words(codes.reshape(weight.shape)).view(torch.uint32)
    return {f"{name}.weight": packed, f"{name}.scales": scales, f"{name}.biases": low}


def fp8(name: str, weight: torch.Tensor) -> Stored:
    blocks = weight.reshape(len(weight) // 128, 128, -1, 128)
    scales = blocks.abs().amax((1, 3)) / 448
    values = (blocks / scales[:, None, :, None]).reshape(weight.shape).to(torch.float8_e4m3fn)
    return {f"{name}.weight": values, f"{name}.weight_scale_inv": scales}


def ternary(name: str, weight: torch.Tensor) -> Stored:
    codes = (weight / weight.abs().mean()).round().clamp(-1, 1).to(torch.uint8) + 1
    quarters = (codes & 3).reshape(4, len(weight) // 4, -1)
    packed = sum(quarters[number] << 2 * number for number in range(4))
    return {f"{name}.weight": packed, f"{name}.weight_scale": torch.tensor([0.0625], dtype=BF16)}


def trained_for_q4_0(name: str, weight: torch.Tensor) -> Stored:
    codes, scales = symmetric(weight, 32, F16)
    return {f"{name}.weight": (codes * scales.float()[:, :, None]).reshape(weight.shape).to(BF16)}


INT4 = {"num_bits": 4, "group_size": 32, "symmetric": True, "type": "int", "strategy": "group"}
FORMS: dict[str, tuple[Pack, dict[str, Any], str]] = {
    "int4": (
        int4,
        {"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized",
                                 "config_groups": {"group_0": {"targets": ["Linear"], "weights": INT4}}}},
        "Q4_0",
    ),
    "gptq": (gptq, {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}, "Q4_0"),
    "mlx": (mlx, {"quantization": {"bits": 4, "group_size": 64}}, "Q4_1"),
    "bitnet": (ternary, {"quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear"}}, "TQ2_0"),
    "trained for Q4_0": (trained_for_q4_0, {}, "Q4_0"),
}  # fmt: skip


def packed(tiny_llama: Path, folder: Path, pack: Pack, settings: dict[str, Any]) -> Path:
    """Return the tiny model with the matrices in its layers packed, and all else in 16 bits."""
    shutil.copytree(tiny_llama, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings | {"dtype": "bfloat16"}))
    stored: Stored = {}
    for name, values in load_file(folder / "model.safetensors").items():
        weight = torch.from_numpy(values)
        in_layer = name.endswith("_proj.weight")
        stored |= pack(name.removesuffix(".weight"), weight) if in_layer else {name: weight.to(BF16)}
    save_file({name: tensor.contiguous() for name, tensor in stored.items()}, folder / "model.safetensors")
    return folder


def decoded(path: Path) -> dict[str, tuple[str, NDArray[np.float32]]]:
    """Return the type and the values of every tensor of the file, read by gguf's own code."""
    return {
        tensor.name: (tensor.tensor_type.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type))
        for tensor in gguf.GGUFReader(path).tensors
    }


@pytest.mark.parametrize("form", FORMS)
def test_the_very_same_weights(form: str, tiny_llama: Path, tmp_path: Path, run_thriftbit: RunThriftbit) -> None:
    pack, settings, format = FORMS[form]
    folder = packed(tiny_llama, tmp_path / "model", pack, settings)

    result = run_thriftbit("quantize", folder, "--to", "same", "-o", tmp_path / "same.gguf")

    assert result.returncode == 0, result.stderr
    assert "21 matrices hold exactly the weights of the source" in result.stdout
    held = decoded(tmp_path / "same.gguf")
    tensors = open_model(folder).tensors
    assert held.keys() == {tensor.name for tensor in tensors}
    for tensor in tensors:
        kind, values = held[tensor.name]
        expected = tensor.load().reshape(values.shape)
        if form == "trained for Q4_0" and kind == "Q4_0":  # the source has them rounded to 16 bits
            values = torch.from_numpy(values).to(BF16).float().numpy()
        np.testing.assert_array_equal(values, expected, err_msg=tensor.name)
        in_layer = tensor.name.startswith("blk.") and "norm" not in tensor.name
        assert kind == (format if in_layer else "BF16" if tensor.rows > 1 else "F32")
    with Engine(tmp_path / "same.gguf", context_tokens=64, threads=1) as engine:
        assert engine.generate("Hello", max_tokens=4, temperature=0).generated_tokens >= 1


@pytest.mark.parametrize("form", ["int4", "gptq", "trained for Q4_0"])
def test_the_plain_level_keeps_them_too(
    form: str, tiny_llama: Path, tmp_path: Path, run_thriftbit: RunThriftbit
) -> None:
    """--to Q4_0 gives the layers the format that holds their weights, so it changes none of these"""
    pack, settings, _ = FORMS[form]
    folder = packed(tiny_llama, tmp_path / "model", pack, settings)

    result = run_thriftbit("quantize", folder, "--to", "Q4_0", "-o", tmp_path / "q4_0.gguf")

    assert "21 matrices hold exactly" in result.stdout, result.stderr
    held = decoded(tmp_path / "q4_0.gguf")
    for tensor in open_model(folder).tensors:
        kind, values = held[tensor.name]
        if kind == "Q4_0" and tensor.name.startswith("blk."):
            rounded = torch.from_numpy(values).to(BF16).float().numpy() if form == "trained for Q4_0" else values
            np.testing.assert_array_equal(rounded, tensor.load().reshape(values.shape))


def test_fp8_has_no_format_of_its_own(tiny_llama: Path, tmp_path: Path, run_thriftbit: RunThriftbit) -> None:
    quantization = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    folder = packed(tiny_llama, tmp_path / "model", fp8, quantization)

    refused = run_thriftbit("quantize", folder, "--to", "same", "-o", tmp_path / "same.gguf")
    eight = run_thriftbit("quantize", folder, "--to", "Q8_0", "-o", tmp_path / "q8_0.gguf")
    plain = run_thriftbit("quantize", folder, "--to", "F32", "-o", tmp_path / "f32.gguf")

    assert refused.returncode == 2 and "no format of GGUF but F32 holds these weights exactly" in refused.stderr
    assert (eight.returncode, plain.returncode) == (0, 0)
    assert "quantized before (FP8)" in eight.stderr and "Q8_0 within 0.7%" in eight.stderr
    values, nearly = decoded(tmp_path / "f32.gguf"), decoded(tmp_path / "q8_0.gguf")
    for tensor in open_model(folder).tensors:
        original = tensor.load()
        np.testing.assert_array_equal(values[tensor.name][1].reshape(original.shape), original)
        if tensor.name.startswith("blk.") and "norm" not in tensor.name:
            away = np.linalg.norm(nearly[tensor.name][1] - original) / np.linalg.norm(original)
            assert 0.001 < away < 0.007


def test_a_block_off_the_grid_is_told(tiny_llama: Path, tmp_path: Path, run_thriftbit: RunThriftbit) -> None:
    folder = packed(tiny_llama, tmp_path / "model", trained_for_q4_0, {})
    stored = {name: torch.from_numpy(values) for name, values in load_bfloat16(folder / "model.safetensors").items()}
    stored["model.layers.1.mlp.up_proj.weight"][7, 40] *= 1.05
    save_file({name: values.to(BF16) for name, values in stored.items()}, folder / "model.safetensors")

    result = run_thriftbit("quantize", folder, "--to", "same", "-o", tmp_path / "same.gguf")

    assert result.returncode == 1
    assert "blk.1.ffn_up.weight" in result.stderr and "row 7" in result.stderr
    assert not (tmp_path / "same.gguf").exists()
    plain = run_thriftbit("quantize", folder, "--to", "Q4_0", "-o", tmp_path / "q4_0.gguf")
    assert "20 matrices hold exactly" in plain.stdout, plain.stderr


def load_bfloat16(path: Path) -> dict[str, NDArray[np.float32]]:
    from safetensors.torch import load_file as load

    return {name: tensor.float().numpy() for name, tensor in load(path).items()}


def nvfp4(name: str, weight: torch.Tensor) -> Stored:
    """As ModelOpt stores it: numbers of 4 bits, a scale in FP8 for 16 of them, one more for the matrix"""
    groups = weight.reshape(len(weight), -1, 16)
    overall = groups.abs().max() / (448 * 6)
    scales = (groups.abs().amax(-1) / 6 / overall).to(torch.float8_e4m3fn)
    sizes = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    relative = groups / (scales.float() * overall)[:, :, None].clamp(min=1e-30)
    codes = (relative.abs()[..., None] - sizes).abs().argmin(-1) + 8 * (relative < 0)
    flat = codes.reshape(weight.shape).to(torch.uint8)
    packed = flat[:, ::2] | flat[:, 1::2] << 4
    return {f"{name}.weight": packed, f"{name}.weight_scale": scales, f"{name}.weight_scale_2": overall}


def test_nvfp4_keeps_the_scales_of_its_matrices_beside_them(tiny_llama: Path, tmp_path: Path) -> None:
    settings = {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}
    folder = packed(tiny_llama, tmp_path / "model", nvfp4, settings)
    model = open_model(folder)

    same = unchanged(folder, tmp_path / "same.gguf")
    again = unchanged(same, tmp_path / "again.gguf")

    held = decoded(same)
    assert sum(name.endswith(".scale") for name in held) == 21
    for tensor in model.tensors:
        kind, values = held[tensor.name]
        scale = held.get(tensor.name.replace(".weight", ".scale"), ("", np.ones(1, np.float32)))[1]
        assert (kind == "NVFP4") == (tensor.name.replace(".weight", ".scale") in held)
        np.testing.assert_array_equal((values * scale).reshape(-1), tensor.load().reshape(-1), err_msg=tensor.name)
    assert open_model(same, allow_requantize=True).fingerprint == model.fingerprint
    assert decoded(again).keys() == held.keys()
    for name, (_, values) in decoded(again).items():
        np.testing.assert_array_equal(values, held[name][1])
    to_gguf(open_checkpoint(folder), tmp_path / "f32.gguf")
    expected = llama_cpp_logits(tmp_path / "f32.gguf")
    assert np.abs(llama_cpp_logits(same) - expected).max() / expected.std() < 0.1  # inputs are rounded to 8 bits


def unchanged(source: Path, path: Path) -> Path:
    from thriftbit import quantize, same_plan

    model = open_model(source, allow_requantize=True)
    return quantize(model, same_plan(model), path, threads=1).path


def test_gpt_oss_as_it_is_published(tmp_path: Path) -> None:
    """Experts in MXFP4, all else in BF16: every weight of the experts arrives unchanged, and llama.cpp computes what
    transformers does with the weights that it unpacks itself"""
    tiny = next(each for each in TINY_MODELS if each.name == "gpt-oss")
    wide = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    model = replace(tiny, config=tiny.config | wide).build()
    model.config.save_pretrained(tmp_path)
    generator = torch.Generator().manual_seed(5)
    stored: Stored = {}
    state = model.state_dict()
    for name, weight in state.items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            state[name] = weight.to(BF16).float()
            stored[name] = weight.to(BF16)
            continue
        experts, inputs, outputs = weight.shape
        blocks = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8, generator=generator)
        scales = torch.randint(120, 124, blocks.shape[:-1], dtype=torch.uint8, generator=generator)
        stored |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        state[name] = convert_moe_packed_tensors(blocks.clone(), scales.clone(), dtype=torch.float32)
    save_file({name: tensor.contiguous() for name, tensor in stored.items()}, tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    quantization = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}))
    model.load_state_dict(state)

    checkpoint = open_checkpoint(tmp_path)
    for name, tensor in checkpoint.tensors.items():
        np.testing.assert_array_equal(tensor.load().reshape(state[name].shape), state[name].numpy(), err_msg=name)
    to_gguf(checkpoint, tmp_path / "f32.gguf")
    expected = reference_logits(model).numpy()
    plain = llama_cpp_logits(tmp_path / "f32.gguf")
    assert np.abs(plain - expected).max() / expected.std() < 1e-4

    same = carried_over(tmp_path)
    values, kept = decoded(tmp_path / "f32.gguf"), decoded(same)
    assert {kind for name, (kind, _) in kept.items() if "_exps.weight" in name} == {"MXFP4"}
    for name, (_, weights) in kept.items():
        np.testing.assert_array_equal(weights.reshape(-1), values[name][1].reshape(-1), err_msg=name)
    assert np.abs(llama_cpp_logits(same) - expected).max() / expected.std() < 0.1  # inputs are rounded to 8 bits


def carried_over(folder: Path) -> Path:
    """Return the model without a tokenizer, its weights unchanged."""
    from thriftbit.quantization.quantize import quantize
    from thriftbit.quantization.same import same_plan
    from thriftbit.sources.architectures import find_architecture
    from thriftbit.sources.model import Model

    checkpoint = open_checkpoint(folder)
    architecture = find_architecture(checkpoint.config)
    metadata = {"tokenizer.ggml.model": "no_vocab", **architecture.metadata(checkpoint.config)}
    model = Model(architecture.gguf_name, metadata, tuple(architecture.map_tensors(checkpoint)), str(folder))
    return quantize(model, same_plan(model), folder / "same.gguf", threads=1).path
