"""What configurations say of packed weights: where it stands, and what holds for one module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from thriftbit.errors import ThriftbitError
from thriftbit.sources.checkpoint import open_checkpoint
from thriftbit.sources.packed import Packing, find_packing

RECORDED = Path(__file__).parents[2] / "conformance" / "packed_weights"


def packing(method: str, **settings: Any) -> Packing:
    found = find_packing({"quantization_config": {"quant_method": method, **settings}})
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "content", "method", "bits"),
    [
        ("quantize_config.json", {"bits": 4, "group_size": 128}, "gptq", 4),
        ("quant_config.json", {"w_bit": 4, "q_group_size": 128, "version": "GEMM"}, "awq", 4),
        ("hf_quant_config.json", {"producer": {}, "quantization": {"quant_algo": "NVFP4"}}, "modelopt", None),
    ],
)
def test_files_beside_the_configuration_say_it_too(
    tmp_path: Path, name: str, content: dict[str, Any], method: str, bits: int | None
) -> None:
    (tmp_path / name).write_text(json.dumps(content))
    found = find_packing({}, tmp_path)
    assert found is not None
    assert (found.method, found.of_module("m").get("bits")) == (method, bits)
    assert find_packing({}) is None


def test_groups_of_compressed_tensors_are_told_by_name_expression_and_class() -> None:
    def group(bits: int, *targets: str) -> dict[str, Any]:
        return {"targets": list(targets), "weights": {"num_bits": bits}}

    groups = {"a": group(8, "Linear"), "b": group(4, r"re:.*experts\.\d+\.(gate|up)_proj$"), "c": group(2, "lm_head")}
    found = packing("compressed-tensors", config_groups=groups)
    bits = {
        name: found.of_module(name)["num_bits"]
        for name in ("model.layers.0.mlp.experts.3.up_proj", "model.layers.0.self_attn.q_proj", "lm_head")
    }
    assert list(bits.values()) == [4, 8, 2]


def test_rules_of_gptq_and_modules_of_mlx() -> None:
    gptq = packing("gptq", bits=4, group_size=128, dynamic={r"+:.*\.1\..*down.*": {"bits": 8}, r"-:.*gate.*": {}})
    assert gptq.of_module("model.layers.1.mlp.down_proj") == gptq.settings | {"bits": 8}
    assert gptq.of_module("model.layers.2.mlp.down_proj")["bits"] == 4
    mlx = find_packing({"quantization": {"bits": 4, "group_size": 64, "lm_head": {"bits": 8, "group_size": 32}}})
    assert mlx is not None
    assert (mlx.of_module("lm_head")["bits"], mlx.of_module("model.embed_tokens")["bits"]) == (8, 4)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*$", ".*.*.*.*.*.*x", r"(a)\1", "a" * 400])
def test_expressions_that_may_take_forever_are_refused(pattern: str) -> None:
    found = packing("gptq", bits=4, dynamic={pattern: {"bits": 8}})
    with pytest.raises(ThriftbitError, match="may take forever"):
        found.of_module("a" * 40)


def test_modelopt_has_the_numbers_of_compressed_tensors_under_other_names(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from safetensors.torch import load_file
    from safetensors.torch import save_file as save

    recorded = load_file(RECORDED / "compressed-tensors-nvfp4.safetensors")
    module = "model.layers.0.mlp.up_proj"
    save(
        {
            "m.weight": recorded[f"{module}.weight_packed"],
            "m.weight_scale": recorded[f"{module}.weight_scale"],
            "m.weight_scale_2": 1 / recorded[f"{module}.weight_global_scale"].float(),
            "m.input_scale": recorded[f"{module}.weight_global_scale"].float(),
        },
        tmp_path / "model.safetensors",
    )
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "NVFP4"}}))

    tensors = open_checkpoint(tmp_path).tensors

    assert list(tensors) == ["m.weight"]
    np.testing.assert_allclose(tensors["m.weight"].load(), recorded["expected"].float().numpy(), rtol=2**-8)


def test_experts_of_mlx_get_the_names_that_others_have(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.switch_mlp.up_proj"
    stored = {
        f"{name}.weight": np.arange(3 * 8 * 8, dtype=np.uint32).reshape(3, 8, 8),
        f"{name}.scales": np.ones((3, 8, 1), np.float16),
        f"{name}.biases": np.zeros((3, 8, 1), np.float16),
    }
    save_file(stored, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"quantization": {"bits": 4, "group_size": 64}}))

    tensors = open_checkpoint(tmp_path).tensors

    assert list(tensors) == [f"model.layers.0.mlp.experts.{expert}.up_proj.weight" for expert in range(3)]
    assert tensors["model.layers.0.mlp.experts.2.up_proj.weight"].load()[0, :2].tolist() == [0, 8]  # 128 is 0x80
