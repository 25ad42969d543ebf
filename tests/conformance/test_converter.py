"""Classes without a table, through llama.cpp's real converter: llama.cpp's logits are transformers' logits."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import thriftbit
from thriftbit import make_plan, open_model, quantize
from thriftbit.containers.gguf_reader import read_gguf
from thriftbit.errors import ThriftbitError
from thriftbit.sources.checkpoint import open_checkpoint
from thriftbit.sources.converter import ConverterOptions
from thriftbit.sources.converter.process import ConverterProcess

from .converter import real_converter
from .test_architectures import TOLERANCE, llama_cpp_logits, write_f32
from .tiny_converted import BY_CONVERTER
from .tiny_models import SHAPE, VOCABULARY, tokens

DEMO_MODEL = Path(thriftbit.__file__).parent / "demo_model"

EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
GLM = {"n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1, "head_dim": 16}
LFM = {"num_experts": 4, "num_dense_layers": 1, "layer_types": ["conv", "full_attention"], "norm_eps": 0.02}
CLASSES = {
    "Glm4MoeForCausalLM": SHAPE | EXPERTS | GLM,
    "Lfm2MoeForCausalLM": SHAPE | EXPERTS | LFM,
    "HunYuanDenseV1ForCausalLM": SHAPE | {"head_dim": 16},
    "ApertusForCausalLM": BY_CONVERTER["ApertusForCausalLM"],
}


def build(name: str, **other: object) -> transformers.PreTrainedModel:
    model_class = getattr(transformers, name)
    torch.manual_seed(0)
    settings = deepcopy(CLASSES[name]) | other  # transformers writes into what it is given
    model = model_class(model_class.config_class(**settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)  # no norm of ones, no bias of zeros
    return model


@pytest.mark.parametrize("name", CLASSES)
def test_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    model = build(name)
    model.save_pretrained(tmp_path / "model")
    process = ConverterProcess(real_converter(), open_checkpoint(tmp_path / "model"))
    metadata = {"general.architecture": process.architecture, "tokenizer.ggml.model": "no_vocab", **process.metadata}
    metadata[f"{process.architecture}.vocab_size"] = np.uint32(VOCABULARY)  # usually told by the tokenizer
    write_f32(tmp_path / "model.gguf", metadata, list(process.tensors))
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([tokens()])).logits[0].numpy()
    assert np.abs(llama_cpp_logits(tmp_path / "model.gguf") - expected).max() < TOLERANCE * expected.std()


def test_rows_are_the_same_however_they_are_asked_for(tmp_path: Path) -> None:
    """Experts are computed one by one, and not as one stack."""
    build("Glm4MoeForCausalLM").save_pretrained(tmp_path)
    process = ConverterProcess(real_converter(), open_checkpoint(tmp_path))
    (stack,) = (tensor for tensor in process.tensors if tensor.name == "blk.1.ffn_down_exps.weight")
    assert stack.shape == (4, 48, 32)
    whole = stack.load()
    for start, stop in ((0, 1), (47, 49), (10, 180), (191, 192), (0, 192)):
        np.testing.assert_array_equal(stack.load(start, stop), whole[start:stop])
    names = [f"model.layers.1.mlp.experts.{number}.down_proj.weight" for number in range(4)]
    checkpoint = open_checkpoint(tmp_path)
    np.testing.assert_array_equal(whole, np.concatenate([checkpoint.tensors[name].load() for name in names]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a model of a class without a table, with the demo model's tokenizer."""
    vocabulary = json.loads((DEMO_MODEL / "config.json").read_text())["vocab_size"]
    path = tmp_path / "model"
    build("ApertusForCausalLM", vocab_size=vocabulary).save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO_MODEL / name, path / name)
    return path


def test_it_is_quantized_like_any_other(folder: Path, tmp_path: Path) -> None:
    options = ConverterOptions(real_converter().folder)
    model = open_model(folder, converter=options)
    result = quantize(model, make_plan(model, "Q8_0"), tmp_path / "model.gguf")
    file = read_gguf(result.path)
    assert file.metadata["general.architecture"] == "apertus"
    assert len(file.metadata["tokenizer.ggml.tokens"]) == model.tensors[0].rows  # type: ignore[arg-type]
    assert "general.name" in file.metadata
    types = {info.name: info.ggml_type.name for info in file.tensors}
    assert types["blk.1.ffn_down.weight"] == "Q8_0" and types["blk.0.attn_norm.weight"] == "F32"


def test_without_a_converter_it_is_said_what_works(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("THRIFTBIT_DATA", str(tmp_path))
    with pytest.raises(ThriftbitError) as caught:
        open_model(folder)
    first, second = str(caught.value).split("\n")
    assert "ApertusForCausalLM" in first and "--converter" in first and "pip install" in first
    assert "thriftbit quantize FILE.gguf" in second


def test_a_class_that_nobody_knows_is_said_to_be_that(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["SomethingNewForCausalLM"]}))
    with pytest.raises(
        ThriftbitError, match=r"SomethingNewForCausalLM is known neither to Thriftbit nor to llama\.cpp"
    ):
        open_model(folder, converter=ConverterOptions(real_converter().folder))


def test_something_else_is_no_converter(folder: Path) -> None:
    with pytest.raises(ThriftbitError, match=r"is not llama\.cpp's converter"):
        open_model(folder, converter=ConverterOptions(folder))
