"""Packed weights that are incomplete, contradictory or forged: a sentence that names tensor or setting, never a model
that runs and is wrong."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from thriftbit.errors import ThriftbitError
from thriftbit.sources.checkpoint import open_checkpoint

Stored = dict[str, NDArray[Any]]
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}
MLX = {"bits": 4, "group_size": 32}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True}
STATE = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [32, 64]}
INT4 = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 32}}},
}


def gptq(**changes: Any) -> Stored:
    """Of shape (32, 64)"""
    return {
        "m.qweight": np.zeros((8, 32), np.int32),
        "m.scales": np.ones((2, 32), np.float16),
        "m.qzeros": np.zeros((2, 4), np.int32),
        "m.g_idx": np.repeat(np.arange(2, dtype=np.int32), 32),
    } | changes


def int4(**changes: Any) -> Stored:
    return {
        "m.weight_packed": np.zeros((32, 8), np.int32),
        "m.weight_scale": np.ones((32, 2), np.float16),
        "m.weight_shape": np.array([32, 64], np.int64),
    } | changes


def nf4(state: Any = STATE, **changes: Any) -> Stored:
    written = state if isinstance(state, bytes) else json.dumps(state).encode()
    return {
        "m.weight": np.zeros((1024, 1), np.uint8),
        "m.weight.absmax": np.ones(32, np.float32),
        "m.weight.quant_map": np.linspace(-1, 1, 16, dtype=np.float32),
        "m.weight.quant_state.bitsandbytes__nf4": np.frombuffer(written, np.uint8),
    } | changes


def mlx(**changes: Any) -> Stored:
    return {
        "m.weight": np.zeros((32, 8), np.uint32),
        "m.scales": np.ones((32, 2), np.float16),
        "m.biases": np.ones((32, 2), np.float16),
    } | changes


def mxfp4(**changes: Any) -> Stored:
    return {"m_blocks": np.zeros((2, 32, 2, 16), np.uint8), "m_scales": np.zeros((2, 32, 2), np.uint8)} | changes


def awq(**changes: Any) -> Stored:
    return {
        "m.qweight": np.zeros((64, 4), np.int32),
        "m.scales": np.ones((2, 32), np.float16),
        "m.qzeros": np.zeros((2, 4), np.int32),
    } | changes


def without(stored: Stored, *names: str) -> Stored:
    return {name: values for name, values in stored.items() if name not in names}


def folder(tmp_path: Path, stored: Stored, quantization: Any, key: str = "quantization_config") -> Path:
    (tmp_path / "config.json").write_text(json.dumps({key: quantization}))
    save_file(stored, tmp_path / "model.safetensors")
    return tmp_path


OTHER = np.ones((3, 3), np.float16)
BROKEN: dict[str, tuple[Stored, Any, str]] = {
    "scales missing": (without(gptq(), "m.scales"), GPTQ, "'m.scales' is missing"),
    "zeros missing": (without(gptq(), "m.qzeros"), GPTQ, "'m.qzeros' is missing"),
    "scales of another shape": (gptq(**{"m.scales": OTHER}), GPTQ, "'m.scales' of shape (2, 32)"),
    "zeros of another shape": (gptq(**{"m.qzeros": np.zeros((2, 5), np.int32)}), GPTQ, "'m.qzeros' of shape (2, 4)"),
    "groups that are not there": (gptq(**{"m.g_idx": np.full(64, 7, np.int32)}), GPTQ, "groups in 'm.g_idx'"),
    "order of another length": (gptq(**{"m.g_idx": np.zeros(3, np.int32)}), GPTQ, "'m.g_idx' of shape (64,)"),
    "other bits": (gptq(), GPTQ | {"bits": 8}, "'m.scales' of shape (1, 32)"),
    "no bits": (gptq(), {"quant_method": "gptq", "group_size": 32}, "needs bits in the quantization settings"),
    "bits of a stranger": (gptq(), GPTQ | {"bits": 10**9}, "has bits 1000000000; what is read is 2, 3, 4"),
    "bits in words": (gptq(), GPTQ | {"bits": "four"}, "needs bits in the quantization settings"),
    "group size of zero": (gptq(), GPTQ | {"group_size": 0}, "needs group_size in the quantization settings"),
    "an odd group size": (gptq(), GPTQ | {"group_size": 24}, "'m.scales' of shape (3, 32)"),
    "not packed in words": (gptq(**{"m.qweight": np.zeros((8, 32), np.float32)}), GPTQ, "'m.qweight' belongs"),
    "AWQ, scales missing": (without(awq(), "m.scales"), AWQ, "'m.scales' is missing"),
    "AWQ in another layout": (awq(), AWQ | {"version": "gemv"}, "layout 'gemv'"),
    "AWQ that is GPTQ": (gptq(), AWQ, "m.scales"),
    "int4, scales missing": (without(int4(), "m.weight_scale"), INT4, "'m.weight_scale' is missing"),
    "int4, shape missing": (without(int4(), "m.weight_shape"), INT4, "'m.weight_shape' is missing"),
    "int4, a huge shape": (int4(**{"m.weight_shape": np.array([1 << 62, 64])}), INT4, "which no weight has"),
    "int4, a negative shape": (int4(**{"m.weight_shape": np.array([-32, 64])}), INT4, "which no weight has"),
    "int4, another shape": (int4(**{"m.weight_shape": np.array([32, 128])}), INT4, "'m.weight_packed' of shape"),
    "int4, nobody's module": (
        int4(), INT4 | {"config_groups": {"g": {"targets": ["re:.*experts.*"], "weights": {"num_bits": 4}}}},
        "no group in config_groups says how 'm' is packed",
    ),
    "a regular expression that hangs": (
        int4(), INT4 | {"config_groups": {"g": {"targets": ["re:(m+)+$"], "weights": {"num_bits": 4}}}}, "take forever",
    ),
    "no regular expression": (
        int4(), INT4 | {"config_groups": {"g": {"targets": ["re:["], "weights": {}}}}, "no regular expression",
    ),
    "MXFP4, scales missing": (without(mxfp4(), "m_scales"), {"quant_method": "mxfp4"}, "'m_scales' is missing"),
    "MXFP4, blocks missing": (without(mxfp4(), "m_blocks"), {"quant_method": "mxfp4"}, "'m_scales' belongs to"),
    "MXFP4, other scales": (mxfp4(m_scales=np.zeros((2, 32, 3), np.uint8)), {"quant_method": "mxfp4"}, "m_scales"),
    "NF4, scales missing": (without(nf4(), "m.weight.absmax"), NF4, "'m.weight.absmax' is missing"),
    "NF4, state missing": (without(nf4(), "m.weight.quant_state.bitsandbytes__nf4"), NF4, "quant_state"),
    "NF4, state no JSON": (nf4(b"{"), NF4, "not valid JSON"),
    "NF4, a huge shape": (nf4(STATE | {"shape": [1 << 40, 1 << 40]}), NF4, "which no weight has"),
    "NF4, a shape in words": (nf4(STATE | {"shape": "large"}), NF4, "which no weight has"),
    "NF4, groups of none": (nf4(STATE | {"blocksize": 0}), NF4, "blocksize 0"),
    "NF4, fewer scales": (nf4(**{"m.weight.absmax": np.ones(31, np.float32)}), NF4, "'m.weight.absmax' of shape (32,)"),
    "NF4, scales of scales missing": (
        nf4(STATE | {"nested_blocksize": 256, "nested_offset": 0.5}), NF4, "lacks weight.nested_absmax",
    ),
    "MLX, offsets missing": (without(mlx(), "m.biases"), MLX, "'m.biases' is missing"),
    "MLX, other bits": (mlx(), MLX | {"bits": 8}, "'m.weight' of shape (32, 16)"),
    "MLX in another mode": (mlx(), MLX | {"mode": "mxfp8"}, "mode 'mxfp8'"),
    "INT8, scales missing": ({"m.weight": np.zeros((4, 4), np.int8)}, {"quant_method": "x"}, "is missing"),
    "a method that is not read": (
        {"m.codebooks": np.zeros((4, 4), np.int8), "m.codes": np.zeros((4, 4), np.int8)}, {"quant_method": "aqlm"},
        "packed by 'aqlm', which is not read",
    ),
    "scales without weights": (without(int4(), "m.weight_packed"), INT4, "belongs to a packed weight that is missing"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_unpacked_is_told(kind: str, tmp_path: Path) -> None:
    stored, quantization, reason = BROKEN[kind]
    key = "quantization" if kind.startswith("MLX") else "quantization_config"

    started = time.monotonic()
    with pytest.raises(ThriftbitError) as caught:
        open_checkpoint(folder(tmp_path, stored, quantization, key))

    message = str(caught.value)
    assert reason in message
    assert message.count("\n") <= 1
    assert time.monotonic() - started < 20  # seconds; a forged size or expression takes hours


@pytest.mark.parametrize(
    ("stored", "quantization", "key"),
    [
        (gptq(), GPTQ, "quantization_config"),
        (awq(), AWQ, "quantization_config"),
        (int4(), INT4, "quantization_config"),
        (nf4(), NF4, "quantization_config"),
        (mlx(), MLX, "quantization"),
    ],
    ids=["GPTQ", "AWQ", "int4", "NF4", "MLX"],
)
def test_what_the_broken_ones_were_made_of_is_whole(
    stored: Stored, quantization: Any, key: str, tmp_path: Path
) -> None:
    tensors = open_checkpoint(folder(tmp_path, stored, quantization, key)).tensors

    assert list(tensors) == ["m.weight"]
    assert tensors["m.weight"].load().shape == tensors["m.weight"].shape == (32, 64)


def test_a_scale_that_is_no_number_is_told_when_it_is_read(tmp_path: Path) -> None:
    stored = mxfp4()
    stored["m_scales"][1, 5, 0] = 255
    tensor = open_checkpoint(folder(tmp_path, stored, {"quant_method": "mxfp4"})).tensors["m"]

    with pytest.raises(ThriftbitError, match=r"no number in row 37 of 'm_scales'"):
        tensor.load()


def test_a_file_that_shrinks_while_it_is_read_is_told(tmp_path: Path) -> None:
    tensor = open_checkpoint(folder(tmp_path, gptq(), GPTQ)).tensors["m.weight"]
    (tmp_path / "model.safetensors").write_bytes(b"")

    with pytest.raises(ThriftbitError, match="the file changed while it was being read"):
        tensor.load()
