"""Packed weights against the libraries that packed them, as `tools/record_packed_weights.py` recorded them, against
transformers where it unpacks by itself, and against the formats' specifications.
"""

from __future__ import annotations

import json
import struct
import warnings
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from thriftbit.formats import format_named
from thriftbit.sources.packed import find_packing, unpacked
from thriftbit.sources.safetensors_file import StoredRows, read_safetensors
from thriftbit.sources.tensor import SameRows, Tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch, about itself
    from transformers.integrations.bitnet import pack_weights
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

RECORDED = sorted(Path(__file__).with_name("packed_weights").glob("*.safetensors"))
WEIGHT = "model.layers.0.mlp.up_proj.weight"
EXACT = {  # what a GGUF format holds without loss; the widths of all are 128
    "compressed-tensors-int4-group": "Q4_0",
    "compressed-tensors-int3-channel": "Q4_0",
    "compressed-tensors-int8": None,  # scales of rows and no groups: not taken for Q8_0 blocks
    "compressed-tensors-int8-packed": "Q8_0",
    "compressed-tensors-mxfp4": "MXFP4",
    "compressed-tensors-nvfp4": "NVFP4",
    "compressed-tensors-int4-zeros": "Q4_1",
    "mlx-2bit-32": "Q4_0",  # the offset is twice the scale: codes from -2 to 1
    "mlx-3bit-64": "Q4_1",
    "mlx-4bit-32": "Q4_1",
    "mlx-4bit-64": "Q4_1",
}


def unpack(path: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    return unpacked(read_safetensors(path), find_packing(config), "here")


def save(tensors: dict[str, torch.Tensor], folder: Path) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder / "model.safetensors"


def settings(path: Path) -> dict[str, Any]:
    raw = path.read_bytes()
    (header_bytes,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + header_bytes])
    return {"quantization_config": json.loads(header["__metadata__"]["quantization_config"])}


def as_stored(values: NDArray[np.float32], dtype: str) -> NDArray[np.float32]:
    """Return float32, rounded to the type that the other library unpacks to."""
    kinds = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
    return torch.from_numpy(values).to(kinds[dtype]).float().numpy()


def assert_reads_by_rows(tensor: Tensor) -> None:
    """Any range of rows is what the whole has there"""
    whole = tensor.load()
    for start, stop in [(0, 1), (1, 2), (3, 20), (tensor.rows - 1, tensor.rows), (5, 5)]:
        np.testing.assert_array_equal(tensor.load(start, stop), whole[start:stop])


def assert_same_blocks(tensor: Tensor) -> None:
    """The blocks decode to the very same weights, in llama.cpp's own reading of the format"""
    assert isinstance(tensor.read, SameRows)
    name = tensor.same_format
    assert name is not None
    for start, stop in [(0, tensor.rows), (1, 3)]:
        decoded = gguf.quants.dequantize(tensor.read.blocks(start, stop), gguf.GGMLQuantizationType[name])
        if tensor.read.factors is not None:  # stored beside the blocks
            decoded = decoded * tensor.read.factors(start, stop)
        np.testing.assert_array_equal(decoded, tensor.load(start, stop))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_unpacks_what_the_library_unpacks(path: Path) -> None:
    tensors = unpack(path, settings(path))
    expected = tensors.pop("expected")
    (tensor,) = tensors.values()

    assert (tensor.name, tensor.shape) == (WEIGHT, expected.shape)
    np.testing.assert_array_equal(as_stored(tensor.load(), expected.source_dtype), expected.load())
    assert_reads_by_rows(tensor)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_carries_over_what_a_gguf_format_holds(path: Path) -> None:
    tensor = unpack(path, settings(path))[WEIGHT]

    if path.stem in EXACT or not path.stem.startswith(("gptq", "awq")):
        assert tensor.same_format == EXACT.get(path.stem)
    if tensor.same_format is not None:
        assert_same_blocks(tensor)


@pytest.mark.parametrize("shape", [(256, 384), (200, 300)], ids=["whole blocks", "cut blocks"])
def test_blocks_of_fp8_as_transformers(shape: tuple[int, int], tmp_path: Path) -> None:
    weight = torch.randn(shape).to(torch.float8_e4m3fn)
    scale = torch.rand(-(-shape[0] // 128), -(-shape[1] // 128)) / 100
    path = save({"a.weight": weight, "a.weight_scale_inv": scale}, tmp_path)
    config = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}

    tensor = unpack(path, config)["a.weight"]

    spread = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)[: shape[0], : shape[1]]
    np.testing.assert_array_equal(tensor.load(), (weight.float() * spread).numpy())
    if shape == (256, 384):  # transformers does not cut blocks
        transformers = Fp8Dequantize(None)._dequantize_one(weight, scale, torch.float32)
        np.testing.assert_array_equal(tensor.load(), transformers.numpy())
    assert_reads_by_rows(tensor)


def test_fp8_and_fp4_with_powers_of_two_as_transformers(tmp_path: Path) -> None:
    """What DeepSeek V4 is published in: scales without a mantissa, experts in MXFP4"""
    weight = torch.randn(256, 256).to(torch.float8_e4m3fn)
    scale = torch.randint(115, 125, (2, 2), dtype=torch.uint8)
    expert = torch.randint(-128, 128, (64, 128), dtype=torch.int8)
    groups = torch.randint(115, 125, (64, 8), dtype=torch.uint8)
    path = save(
        {"a.weight": weight, "a.scale": scale.view(torch.float8_e8m0fnu), "e.0.weight": expert, "e.0.scale": groups},
        tmp_path,
    )
    config = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}

    tensors = unpack(path, config)

    dequantize = Fp8Dequantize(None)._dequantize_one
    np.testing.assert_array_equal(tensors["a.weight"].load(), dequantize(weight, scale, torch.float32).numpy())
    np.testing.assert_array_equal(tensors["e.0.weight"].load(), dequantize(expert, groups, torch.float32).numpy())
    assert_same_blocks(tensors["e.0.weight"])


def test_the_values_of_all_small_floats(tmp_path: Path) -> None:
    every = torch.arange(256, dtype=torch.uint8)
    kinds = [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz]
    path = save({str(kind): every.clone().view(kind) for kind in kinds}, tmp_path)

    tensors = unpack(path, {})

    for kind in kinds:
        np.testing.assert_array_equal(tensors[str(kind)].load()[0], every.view(kind).float().numpy())
        assert tensors[str(kind)].source_dtype == "BF16"


def test_experts_of_gpt_oss_as_transformers(tmp_path: Path) -> None:
    blocks = torch.randint(0, 256, (3, 64, 4, 16), dtype=torch.uint8)
    scales = torch.randint(110, 130, (3, 64, 4), dtype=torch.uint8)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    path = save({f"{name}_blocks": blocks, f"{name}_scales": scales, f"{name}_bias": torch.ones(3, 64)}, tmp_path)

    tensors = unpack(path, {"quantization_config": {"quant_method": "mxfp4"}})

    expected = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    assert tensors.keys() == {name, f"{name}_bias"}
    assert tensors[name].shape == expected.shape == (3, 128, 64)
    np.testing.assert_array_equal(tensors[name].load(), expected.numpy().reshape(-1, 64))
    assert_reads_by_rows(tensors[name])


def test_bitnet_as_transformers(tmp_path: Path) -> None:
    signs = torch.randint(-1, 2, (64, 256))
    scale = torch.tensor([1.375], dtype=torch.bfloat16)
    path = save({"a.weight": pack_weights(signs.clone()), "a.weight_scale": scale}, tmp_path)

    divided = unpack(path, {"quantization_config": {"quant_method": "bitnet"}})["a.weight"]
    layer = {"quant_method": "bitnet", "linear_class": "autobitlinear"}
    multiplied = unpack(path, {"quantization_config": layer})["a.weight"]

    np.testing.assert_array_equal(divided.load(), signs.numpy() * (np.float32(1) / np.float32(1.375)))
    np.testing.assert_array_equal(multiplied.load(), signs.numpy().astype(np.float32) * np.float32(1.375))
    assert_reads_by_rows(multiplied)
    assert (divided.same_format, multiplied.same_format) == (None, "TQ2_0")
    assert_same_blocks(multiplied)


def test_reading_never_takes_the_whole_tensor(tmp_path: Path) -> None:
    """A stored column is a row of GPTQ's weights: only those columns are read"""
    for width in (1000, 10_000):  # short rows are read whole, long ones are not
        path = save({"a": torch.arange(4 * width, dtype=torch.int32).reshape(4, width)}, tmp_path)
        stored = read_safetensors(path)["a"].read
        assert isinstance(stored, StoredRows)
        columns = [[row * width + 7, row * width + 8] for row in range(4)]
        np.testing.assert_array_equal(stored.stored_columns(7, 9), columns)
        np.testing.assert_array_equal(stored.stored_columns(7, 9, 1, 2), columns[1:2])
        np.testing.assert_array_equal(stored.stored_items(width - 2, width + 1), [width - 2, width - 1, width])


def test_gguf_formats_that_are_offered_exist() -> None:
    assert all(format_named(name).can_encode for name in EXACT.values() if name)
