"""Models known by their description: folders without weights, and headers on a server that is a small one here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from thriftbit.errors import ThriftbitError
from thriftbit.quantization.gguf_file import file_layout
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.presets import PRESETS
from thriftbit.quantization.quantize import quantize
from thriftbit.sources import remote_file
from thriftbit.sources.born_small import BITNET, born_small
from thriftbit.sources.hub import HubId, file_url
from thriftbit.sources.open_model import open_model
from thriftbit.sources.remote import Outline, open_outline

from .fake_hub import REPOSITORY, FakeHub


def serve(hub: FakeHub, folder: Path) -> None:
    hub.files = {path.name: path.read_bytes() for path in folder.iterdir()}


def size(outline: Outline, preset: str) -> int:
    return file_layout(outline.model, make_plan(outline.model, preset)).file_size_bytes


@pytest.mark.parametrize("preset", ["F32", "Q8_0", "Q4_K_M", "Q2_K"])
def test_the_size_is_known_to_the_byte_before_anything_is_written(
    tiny_llama: Path, preset: str, tmp_path: Path
) -> None:
    model = open_model(tiny_llama)
    written = quantize(model, make_plan(model, preset), tmp_path / "file.gguf").path
    assert size(open_outline(tiny_llama), preset) == written.stat().st_size


def test_a_repository_is_described_without_its_weights(
    fake_hub: FakeHub, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(fake_hub, tiny_llama)
    monkeypatch.setattr(remote_file, "BLOCK_BYTES", 4096)
    outline = open_outline(REPOSITORY)
    local = open_outline(tiny_llama)
    assert [(t.name, t.shape) for t in outline.model.tensors] == [(t.name, t.shape) for t in local.model.tensors]
    assert outline.tokenizer_known and not outline.obstacle
    weights = [sent for name, _, sent in fake_hub.served if name.endswith(".safetensors")]
    assert 0 < sum(weights) < 2 * len(fake_hub.files["model.safetensors"])  # this server knows no end of a range
    with pytest.raises(ThriftbitError, match="only the description"):
        outline.model.tensors[0].load(0, 1)


def test_a_gguf_on_a_server_is_read_by_its_header(fake_hub: FakeHub, tiny_llama: Path, tmp_path: Path) -> None:
    model = open_model(tiny_llama)
    path = quantize(model, make_plan(model, "Q4_K_M"), tmp_path / "tiny.gguf").path
    fake_hub.files = {"tiny.gguf": path.read_bytes()}
    commit = HubId(REPOSITORY, "0123456789abcdef0123456789abcdef01234567")
    outline = open_outline(file_url(commit, "tiny.gguf"))
    assert outline.file_bytes == path.stat().st_size
    assert outline.level == "Q4_K_M"
    assert outline.obstacle == "It is quantized already."
    assert outline.model.parameters == model.parameters


def test_a_server_that_refuses_says_what_to_do(fake_hub: FakeHub) -> None:
    fake_hub.refusal = (401, "GatedRepo")
    with pytest.raises(ThriftbitError, match="hf auth login"):
        open_outline(fake_hub.url + "/somebody/model/resolve/main/model.gguf")


def test_a_server_that_is_not_there_is_told_in_a_sentence() -> None:
    with pytest.raises(ThriftbitError, match="cannot be reached") as caught:
        open_outline("http://127.0.0.1:9/model.gguf")
    assert "\n" not in str(caught.value)


def test_offline_nothing_is_asked(fake_hub: FakeHub) -> None:
    with pytest.raises(ThriftbitError, match="--offline"):
        open_outline(fake_hub.url + "/model.gguf", offline=True)
    assert not fake_hub.served


def test_a_repository_of_ggufs_names_one(fake_hub: FakeHub) -> None:
    fake_hub.files = {"tiny-Q4_K_M.gguf": b"GGUF", "README.md": b""}
    with pytest.raises(ThriftbitError, match=f"{REPOSITORY}/tiny-Q4_K_M.gguf"):
        open_outline(REPOSITORY)


def test_a_configuration_alone_gives_the_tensors(tiny_llama: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_llama / "config.json", tmp_path)
    alone, whole = open_outline(tmp_path), open_outline(tiny_llama)
    assert [(t.name, t.shape) for t in alone.model.tensors] == [(t.name, t.shape) for t in whole.model.tensors]
    assert not alone.tokenizer_known and not alone.weights_there
    for preset in PRESETS:
        ours, theirs = make_plan(alone.model, preset), make_plan(whole.model, preset)
        assert ours.weights_bytes(alone.model) == theirs.weights_bytes(whole.model)


def test_with_the_tokenizer_beside_it_even_that_is_exact(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / tiny_llama.name
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_llama / name, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))
    assert size(open_outline(folder), "Q4_K_M") == size(open_outline(tiny_llama), "Q4_K_M")


INT4 = {"num_bits": 4, "group_size": 32, "symmetric": True}
PACKED_INT4 = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": INT4}},
}


@pytest.mark.parametrize(
    ("model_type", "quantization", "kind", "format", "trained"),
    [
        ("gpt_oss", {"quant_method": "mxfp4"}, "MXFP4", "MXFP4", True),
        ("llama", {"quant_method": "mxfp4"}, "MXFP4", "MXFP4", False),
        ("deepseek_v3", {"quant_method": "fp8", "weight_block_size": [128, 128]}, "FP8", "", True),
        ("deepseek_v3", {"quant_method": "awq", "bits": 4}, "AWQ", "", False),
        ("minimax_m2", {"quant_method": "fp8"}, "FP8", "", True),
        ("kimi_k2", PACKED_INT4, "INT4", "Q4_0", True),
        ("qwen3", {"quant_method": "fp8", "weight_block_size": [128, 128]}, "FP8", "", False),
        ("qwen3", {"quant_method": "compressed-tensors", "format": "float-quantized"}, "FP8", "", False),
        ("qwen3", {"quant_method": "modelopt", "quant_algo": "NVFP4"}, "NVFP4", "NVFP4", False),
        ("qwen3", {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}, "NVFP4", "NVFP4", False),
        ("qwen3", {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}, "GPTQ", "Q4_0", False),
        ("qwen3", {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": True}, "GPTQ", "", False),
        ("qwen3", {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}, "AWQ", "", False),
        ("qwen3", {"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes", "", False),
        ("qwen3", {"bits": 4, "group_size": 64}, "MLX", "Q4_1", False),
        ("llama", {"quant_method": "bitnet", "linear_class": "autobitlinear"}, BITNET, "TQ2_0", False),
        ("llama", {"quant_method": "aqlm"}, "AQLM", "", False),
    ],
)  # fmt: skip
def test_models_that_are_small_already(
    model_type: str, quantization: dict[str, object], kind: str, format: str, trained: bool
) -> None:
    born = born_small({"model_type": model_type, "quantization_config": quantization})

    assert born is not None
    assert (born.kind, born.format, born.trained, born.packed) == (kind, format, trained, True)
    assert ("there is no original in 16 bits" in born.advice) == trained
    assert ("A file made from the original in 16 bits" in born.advice) != trained
    assert (f"{format} " in born.advice and "--to same" in born.advice) == bool(format)
    assert ("GGUF has no such format" in born.advice) == (kind == "FP8")


@pytest.mark.parametrize("method", ["fp8", "awq"])
def test_a_configuration_of_packed_weights_is_no_obstacle(tiny_llama: Path, tmp_path: Path, method: str) -> None:
    config = json.loads((tiny_llama / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": method}}))
    assert open_outline(tmp_path).obstacle == ""


def test_a_method_that_is_not_read_is_an_obstacle(tiny_llama: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_llama / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "aqlm"}}))
    assert open_outline(tmp_path).obstacle == "Its weights are packed by 'aqlm', which Thriftbit does not read."


def test_what_bitsandbytes_leaves_behind_is_nothing(tiny_llama: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_llama / "config.json").read_text())
    idle = {"quant_method": "bitsandbytes", "load_in_4bit": False, "load_in_8bit": False}
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": idle}))
    assert open_outline(tmp_path).born is None


def test_quantization_aware_training_is_in_the_name(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gemma-3-1b-it-qat-q4_0-unquantized"
    folder.mkdir()
    shutil.copy(tiny_llama / "config.json", folder)
    outline = open_outline(folder)
    assert outline.born is not None and outline.born.format == "Q4_0"
    assert not outline.obstacle


@pytest.mark.parametrize(
    ("name", "model_type"), [("XverseForCausalLM", "xverse"), ("NextYearForCausalLM", "of-next-year")]
)
def test_a_class_without_a_table_is_known_by_its_headers(
    name: str, model_type: str, tiny_llama: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "stranger"
    shutil.copytree(tiny_llama, folder)
    config = json.loads((folder / "config.json").read_text())
    strange = {"architectures": [name], "model_type": model_type}
    (folder / "config.json").write_text(json.dumps(config | strange))
    outline = open_outline(folder)
    assert outline.translated and not outline.obstacle
    assert name in outline.note and "thriftbit quantize" in outline.note
    assert outline.model.architecture == model_type
    assert outline.model.parameters == open_outline(tiny_llama).model.parameters
    names = {tensor.name: tensor.role for tensor in outline.model.tensors}
    assert names["blk.0.attn_v.weight"] == "attention-value" and names["output.weight"] == "output"


@pytest.mark.parametrize("config", [{"model_type": "of-next-year"}, {}])
def test_without_a_table_and_without_weights_it_is_told_what_to_give(tmp_path: Path, config: dict[str, str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ThriftbitError, match=r"has no table here(.|\n)*Give the folder that holds them"):
        open_outline(tmp_path)


def test_forged_counts_fill_no_memory(tiny_llama: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_llama / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2**31 - 1}))
    with pytest.raises(ThriftbitError, match="more than"):
        open_outline(tmp_path)
