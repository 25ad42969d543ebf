"""Classes without a table, computed from what llama.cpp's converter made of them: everything is found by content."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from thriftbit import make_plan, quantize
from thriftbit.errors import ThriftbitError
from thriftbit.network import products
from thriftbit.network.configuration import configuration_of
from thriftbit.network.matched import match
from thriftbit.network.network import Network
from thriftbit.network.weights import Weights
from thriftbit.quantization.calibration import calibrate_windows
from thriftbit.quantization.tuning import tune_in
from thriftbit.sources.checkpoint import open_checkpoint
from thriftbit.sources.converter.process import ConverterProcess
from thriftbit.sources.gguf_source import open_gguf
from thriftbit.sources.model import Conversion, Model

from .converter import real_converter
from .test_network import TOLERANCE, layer_by_layer
from .tiny_models import SHAPE, VOCABULARY, tokens

WIDE = SHAPE | {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4}  # blocks of 32 fit in
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
LATENT = {"q_lora_rank": 32, "kv_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16}
ROUTED = {"n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
CLASSES = {
    # half of a matrix is stored transposed; experts one by one
    "DeepseekV3ForCausalLM": WIDE | EXPERTS | LATENT | ROUTED | {"num_key_value_heads": 4},
    # short convolutions
    "Lfm2MoeForCausalLM": WIDE
    | EXPERTS
    | {"num_experts": 4, "num_dense_layers": 1, "layer_types": ["conv", "full_attention"]},
    # experts transposed, gate and up interleaved, biases
    "GptOssForCausalLM": WIDE | {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2},
    # columns in another order
    "Qwen3NextForCausalLM": WIDE
    | EXPERTS
    | LINEAR
    | {"head_dim": 16, "num_experts": 4, "shared_expert_intermediate_size": 32, "num_hidden_layers": 4},
    # embeddings of the layers' own, several streams, keys and values shared by layers
    "Gemma3nForCausalLM": WIDE
    | {
        "head_dim": 16,
        "num_hidden_layers": 5,
        "intermediate_size": [96] * 5,
        "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0, 0.0],
        "layer_types": [*["sliding_attention"] * 2, "full_attention", "sliding_attention", "full_attention"],
        "num_kv_shared_layers": 2,
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 32,
        "laurel_rank": 16,
        "rope_parameters": None,
    },
}
WINDOWS = np.random.default_rng(0).integers(3, VOCABULARY, (16, 24))


def build(name: str) -> transformers.PreTrainedModel:
    model_class = getattr(transformers, name)
    torch.manual_seed(0)
    model = model_class(model_class.config_class(**deepcopy(CLASSES[name]))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def converted(folder: Path) -> Model:
    """Return as `open_model` would, but these models have no tokenizer."""
    checkpoint = open_checkpoint(folder)
    process = ConverterProcess(real_converter(), checkpoint)
    conversion = Conversion(checkpoint, process.tensors)
    return Model(
        process.architecture,
        process.metadata,
        process.tensors,
        str(folder),
        config=checkpoint.config,
        conversion=conversion,
    )


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("THRIFTBIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(products, "_processor_has_them", lambda: False)


@pytest.mark.parametrize("name", CLASSES)
def test_what_the_container_holds_computes_the_same(name: str, tmp_path: Path) -> None:
    whole = build(name)
    whole.save_pretrained(tmp_path / "model")
    model = converted(tmp_path / "model")
    texts = torch.tensor([tokens(), [*tokens()[5:], *tokens()[:5]]])
    with torch.no_grad():
        expected = whole(input_ids=texts).logits
    assert (layer_by_layer(model, texts) - expected).abs().max() < TOLERANCE * expected.std()
    found = match(model)
    shapes = {each: found.checkpoint.shape(each) for each in found.checkpoint.names if not each.endswith("bias")}
    matrices = {each for each, shape in shapes.items() if len(shape) > 1}
    assert matrices <= set(found.origins)  # nothing that may be quantized is taken from the checkpoint


@pytest.mark.parametrize("name", ["DeepseekV3ForCausalLM", "Lfm2MoeForCausalLM", "Gemma3nForCausalLM"])
def test_it_is_calibrated_and_measured(name: str, tmp_path: Path) -> None:
    whole = build(name)
    whole.save_pretrained(tmp_path / "model")
    model = converted(tmp_path / "model")
    calibration = calibrate_windows(model, WINDOWS, tmp_path / "calibration")
    assert {"blk.0.ffn_down.weight", "blk.1.attn_output.weight"} <= calibration.names
    plan = make_plan(model, "Q4_0")
    rounded = tune_in(model, plan, calibration, tmp_path / "tuned") if name == "Lfm2MoeForCausalLM" else None
    result = quantize(model, plan, tmp_path / "q.gguf", calibration=calibration, rounded=rounded)
    assert "blk.0.ffn_down.weight" not in calibration.missing
    quantized = open_gguf(result.path)
    texts = torch.tensor([tokens()])
    with torch.no_grad():
        network = Network(configuration_of(model), torch.device("cpu"))
        logits = {}
        for key, weights in (("original", Weights(model)), ("quantized", Weights(quantized, model))):
            network.texts = key
            hidden = network.embed(weights, texts)
            for index in range(network.layers):
                with network.layer(index, weights) as layer:
                    hidden = network.call(index, layer, hidden)
            logits[key] = network.head(weights, 0, VOCABULARY)(hidden[0])
    apart = (logits["original"] - logits["quantized"]).std() / logits["original"].std()
    assert 0 < apart < 0.5


def test_another_file_s_tensors_are_refused(tmp_path: Path) -> None:
    build("Lfm2MoeForCausalLM").save_pretrained(tmp_path / "model")
    model = converted(tmp_path / "model")
    other = replace(model, tensors=model.tensors[1:], conversion=None, source="other.gguf")
    with pytest.raises(ThriftbitError, match=r"other\.gguf: token_embd\.weight is missing"):
        Weights(replace(other, tensors=(replace(model.tensors[1], name="token_embd.weight"), *other.tensors)), model)
