"""What `inspect` says of a folder in Hugging Face's layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from thriftbit.inspection import TokenizerFacts, TypeTotal, inspect

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
}
SHAPES = {
    "model.embed_tokens.weight": (256, 64),
    "model.layers.0.input_layernorm.weight": (64,),
    "model.layers.0.self_attn.q_proj.weight": (64, 64),
    "model.layers.0.self_attn.k_proj.weight": (32, 64),
    "model.layers.0.self_attn.v_proj.weight": (32, 64),
    "model.layers.0.self_attn.o_proj.weight": (64, 64),
    "model.layers.0.post_attention_layernorm.weight": (64,),
    "model.layers.0.mlp.gate_proj.weight": (96, 64),
    "model.layers.0.mlp.up_proj.weight": (96, 64),
    "model.layers.0.mlp.down_proj.weight": (64, 96),
    "model.norm.weight": (64,),
}


def write_folder(folder: Path, config: Mapping[str, Any] = CONFIG, tokenizer: bool = True) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: np.zeros(shape, np.float16) for name, shape in SHAPES.items()}, folder / "model.safetensors")
    if tokenizer:
        vocabulary = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
        bpe = Tokenizer(models.BPE(vocabulary, []))
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = decoders.ByteLevel()
        bpe.save(str(folder / "tokenizer.json"))
    return folder


def test_facts_of_a_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny-instruct")
    inspection = inspect(folder)
    parameters = sum(int(np.prod(shape)) for shape in SHAPES.values())
    assert inspection.kind == "folder"
    assert inspection.files == ("model.safetensors",)
    assert inspection.name == "Tiny Instruct"
    assert inspection.architecture == "llama"
    assert inspection.context_length == 512
    assert inspection.parameters == parameters
    assert inspection.bits_per_weight == 16
    assert inspection.types == (TypeTotal("F16", 11, parameters, 2 * parameters),)
    assert {tensor.name: tensor.shape for tensor in inspection.tensors} == SHAPES
    assert inspection.tokenizer == TokenizerFacts("gpt2", "gpt-2", 256, chat_template=False)
    assert inspection.oddities == (
        "The token embedding is the output matrix too (tied), so its precision counts twice.",
        "It is called 'Tiny Instruct' but has no chat template: chat programs will guess one.",
    )
    assert json.loads(json.dumps(inspection.to_dict()))["file_type"] is None


def test_folder_without_tokenizer(tmp_path: Path) -> None:
    inspection = inspect(write_folder(tmp_path / "tiny", tokenizer=False))
    assert inspection.tokenizer is None
    assert "It cannot be quantized as it is" in inspection.oddities[0]
    assert "has no tokenizer" in inspection.oddities[0]


def test_folder_of_unknown_architecture(tmp_path: Path) -> None:
    config = CONFIG | {"architectures": ["NovelForCausalLM"], "model_type": "novel"}
    inspection = inspect(write_folder(tmp_path / "tiny", config))
    assert inspection.architecture == "NovelForCausalLM"
    assert inspection.parameters > 0
    assert "The class 'NovelForCausalLM' has no table here" in inspection.oddities[0]


def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny", CONFIG | {"architectures": ["\ud800"]})
    inspection = inspect(folder.rename(tmp_path / "tiny\udcff"))
    assert inspection.architecture == "?"
    json.dumps(inspection.to_dict(), ensure_ascii=False).encode()


def test_folder_that_contradicts_its_configuration(tmp_path: Path) -> None:
    inspection = inspect(write_folder(tmp_path / "tiny", CONFIG | {"intermediate_size": 128}))
    assert "its shape is (96, 64)" in inspection.oddities[0]
