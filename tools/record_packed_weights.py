"""Record what other libraries make of packed weights, for the tests of `sources/packed`.

    pip install compressed-tensors==0.20.1 bitsandbytes==0.50.2 mlx==0.32.4 mlx-cpu==0.32.4 auto-round==0.16.1 loguru
    python tools/record_packed_weights.py

Together with torch they are too large for the test environment. For each scheme one matrix is packed by the library,
and unpacked by the same library: the stored tensors go to tests/conformance/packed_weights/NAME.safetensors, the
unpacked one beside them under "expected", and what config.json would say under the metadata "quantization_config".
AutoRound writes GPTQ's and AWQ's tensors; its code for that is independent of ours, as the others' is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import torch
from auto_round.export.export_to_awq.utils import WQLinear_GEMM, dequantize_gemm
from auto_round_extension.torch.qlinear_torch import QuantLinear
from auto_round_extension.torch.qlinear_torch_zp import QuantLinear as QuantLinearMinusOne
from bitsandbytes import functional
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import save_file

FOLDER = Path(__file__).parent.parent / "tests" / "conformance" / "packed_weights"
NAME = "model.layers.0.mlp.up_proj"
ROWS, WIDTH = 32, 128


def weight(dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return (torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(7)) / 8).to(dtype)


def save(name: str, tensors: dict[str, torch.Tensor], expected: torch.Tensor, config: dict[str, Any]) -> None:
    held = {f"{NAME}.{key}": value.contiguous() for key, value in tensors.items()}
    path = FOLDER / f"{name}.safetensors"
    save_file({**held, "expected": expected.contiguous()}, path, {"quantization_config": json.dumps(config)})
    print(f"{path.name}: {path.stat().st_size:,} bytes")


def bitsandbytes() -> None:
    for kind in ("nf4", "fp4"):
        for nested in (False, True):
            packed, state = functional.quantize_4bit(weight(), quant_type=kind, compress_statistics=nested)
            tensors = {
                "weight": packed,
                **{f"weight.{key}": value for key, value in state.as_dict(packed=True).items()},
            }
            config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind}
            expected = functional.dequantize_4bit(packed, state)
            save(f"bitsandbytes-{kind}{'-nested' if nested else ''}", tensors, expected, config)
    integers, scale, _ = functional.int8_vectorwise_quant(weight(torch.float16))
    expected = functional.int8_vectorwise_dequant(integers, scale)
    config = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    save("bitsandbytes-int8", {"weight": integers, "SCB": scale}, expected, config)


def compressed_tensors() -> None:
    settings: dict[str, tuple[str, dict[str, Any]]] = {
        "int4-group": ("pack-quantized", {"num_bits": 4, "strategy": "group", "group_size": 32, "symmetric": True}),
        "int4-zeros": ("pack-quantized", {"num_bits": 4, "strategy": "group", "group_size": 64, "symmetric": False}),
        "int3-channel": ("pack-quantized", {"num_bits": 3, "strategy": "channel", "symmetric": True}),
        "int8-packed": ("pack-quantized", {"num_bits": 8, "strategy": "channel", "symmetric": True}),
        "int8": ("int-quantized", {"num_bits": 8, "strategy": "channel", "symmetric": True}),
        "fp8-channel": ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True}),
        "fp8-tensor": ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True}),
        "fp8-block": (
            "float-quantized",
            {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [16, 32], "symmetric": True},
        ),
        "nvfp4": (
            "nvfp4-pack-quantized",
            {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16, "symmetric": True},
        ),
        "mxfp4": (
            "mxfp4-pack-quantized",
            {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32, "symmetric": True,
             "scale_dtype": torch.uint8},
        ),
    }  # fmt: skip
    for name, (form, arguments) in settings.items():
        scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**arguments), format=form)
        compressor = BaseCompressor.get_value_from_registry(form)
        tensors = compressor.compress({"weight": weight(), **_scales(arguments)}, scheme)
        expected = compressor.decompress(tensors, scheme)["weight"]
        weights = {key: value for key, value in arguments.items() if key != "scale_dtype"}
        config = {
            "quant_method": "compressed-tensors",
            "format": form,
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "format": form}},
            "ignore": ["lm_head"],
        }
        save(f"compressed-tensors-{name}", tensors, expected, config)


def _scales(arguments: dict[str, Any]) -> dict[str, torch.Tensor]:
    values, most = weight().float(), {3: 3.5, 4: 7.5, 8: 127.5}[arguments["num_bits"]]
    strategy, floating = arguments["strategy"], arguments.get("type") == "float"
    if floating:
        most = 448.0 if arguments["num_bits"] == 8 else 6.0
    if strategy == "tensor":
        return {"weight_scale": (values.abs().max() / most).reshape(1)}
    if strategy == "channel":
        return {"weight_scale": (values.abs().amax(1, keepdim=True) / most).bfloat16()}
    if strategy == "block":
        down, across = arguments["block_structure"]
        blocks = values.reshape(ROWS // down, down, WIDTH // across, across)
        return {"weight_scale": blocks.abs().amax((1, 3)) / most}
    groups = values.reshape(ROWS, -1, arguments["group_size"])
    largest = groups.abs().amax(2) / most
    if strategy == "tensor_group":
        overall = 448.0 * 6.0 / values.abs().max()
        return {
            "weight_scale": (largest * overall).to(torch.float8_e4m3fn).float(),
            "weight_global_scale": overall.reshape(1),
        }
    if floating:
        return {"weight_scale": torch.exp2(torch.floor(torch.log2(largest)) + 1).bfloat16()}
    if arguments["symmetric"]:
        return {"weight_scale": largest.bfloat16()}
    low, high = groups.amin(2), groups.amax(2)
    scale = ((high - low) / 15).bfloat16()
    zeros = torch.round(-8 - low / scale.float()).clamp(-8, 7).to(torch.int8)
    return {"weight_scale": scale, "weight_zero_point": zeros}


def gptq_and_awq() -> None:
    for bits, zero_minus_one in ((2, True), (3, True), (4, True), (8, True), (4, False)):
        group = 32
        linear = torch.nn.Linear(WIDTH, ROWS, bias=False)
        linear.weight.data = weight(torch.float32)
        scales, zeros = _affine(bits, group)
        kind = QuantLinearMinusOne if zero_minus_one else QuantLinear
        layer = kind(bits, group, WIDTH, ROWS, bias=False, g_idx=True)
        layer.device = "cpu"
        layer.pack(linear, scales, zeros, None, device="cpu")
        tensors = {key: value for key, value in layer.state_dict().items() if key != "bias"}
        expected = _forward(layer).T.half()  # the layer multiplies in half precision
        config = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": False, "sym": False,
                  "checkpoint_format": "gptq" if zero_minus_one else "gptq_v2"}  # fmt: skip
        save(f"gptq-{bits}bit{'' if zero_minus_one else '-v2'}", tensors, expected, config)
    linear = torch.nn.Linear(WIDTH, ROWS, bias=False)
    linear.weight.data = weight(torch.float32)
    scales, zeros = _affine(4, 64)
    layer = WQLinear_GEMM.from_linear(linear, 4, 64, scales=scales.T.contiguous(), zeros=zeros.T.contiguous())
    tensors = {key: value for key, value in layer.state_dict().items() if key != "bias"}
    expected = dequantize_gemm(layer.qweight, layer.qzeros, layer.scales, 4, 64).T
    config = {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True, "version": "gemm"}
    save("awq", tensors, expected, config)


def _affine(bits: int, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    groups = weight().float().reshape(ROWS, -1, group)
    low, high = groups.amin(2), groups.amax(2)
    scales = ((high - low) / (2**bits - 1)).half().float()
    return scales, torch.round(-low / scales).clamp(1, 2**bits - 1)


def _forward(layer: torch.nn.Module) -> torch.Tensor:
    """Return (inputs, outputs): what the layer multiplies with, read off one unit vector after another."""
    with torch.no_grad():
        return layer(torch.eye(WIDTH, dtype=torch.float32)).float()


def mlx() -> None:
    values = mx.array(weight().float().numpy()).astype(mx.bfloat16)
    for bits, group in ((2, 32), (3, 64), (4, 32), (4, 64), (5, 64), (6, 64), (8, 128)):
        packed, scales, biases = mx.quantize(values, group_size=group, bits=bits)
        exact = mx.dequantize(packed, scales.astype(mx.float32), biases.astype(mx.float32), group_size=group, bits=bits)
        tensors = {"weight": torch.from_numpy(np.array(packed)), "scales": _torch(scales), "biases": _torch(biases)}
        save(f"mlx-{bits}bit-{group}", tensors, _torch(exact), {"group_size": group, "bits": bits})


def _torch(array: mx.array) -> torch.Tensor:
    plain = torch.from_numpy(np.array(array.astype(mx.float32)))
    return plain.bfloat16() if array.dtype == mx.bfloat16 else plain


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    bitsandbytes()
    compressed_tensors()
    gptq_and_awq()
    mlx()
