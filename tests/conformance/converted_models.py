"""The tiny models as folders that llama.cpp's converter takes: in BF16, wide enough for blocks of 256, and with a layer
that guesses ahead where the family has one. The recorder (tools/record_converted.py) and the test both make them."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from thriftbit.sources.architectures import find_architecture
from thriftbit.sources.architectures.architecture import with_setting

from .tiny_models import TINY_MODELS, VOCABULARY, TinyModel

WIDER = {
    "hidden_size": 256,
    "n_embd": 256,
    "intermediate_size": 512,
    "n_inner": 512,
    "moe_intermediate_size": 256,
    "shared_expert_intermediate_size": 256,
    "shared_intermediate_size": 256,
    "moe_shared_expert_intermediate_size": 256,
    "moe_latent_size": 256,
    "mamba_head_dim": 16,  # the converter wants 64 to divide what 8 heads have
    "mamba_d_ssm": 256,
    "mamba_d_head": 32,
    "q_lora_rank": 256,
    "kv_lora_rank": 256,
}
HEADS = {"num_attention_heads": 8, "n_head": 8, "num_key_value_heads": 2}


def widened(config: dict[str, Any]) -> dict[str, Any]:
    """Return the same settings with lengths that blocks divide."""
    wide = {key: value for key, value in (WIDER | HEADS).items() if config.get(key) is not None}
    wide = {key: value for key, value in wide.items() if key in HEADS or config[key] % 256}
    if "kv_lora_rank" in config:
        wide = {key: value for key, value in wide.items() if key not in HEADS}
    elif "rope_parameters" in config and "head_dim" not in config:
        wide |= {"num_attention_heads": 32, "num_key_value_heads": 8}  # heads of 8 entries, as their rotary tables are
    if config.get("shared_intermediate_size") == config.get("intermediate_size") is not None:
        wide["shared_intermediate_size"] = wide["intermediate_size"]
    if "num_key_value_heads" in wide and config["num_key_value_heads"] == config["num_attention_heads"]:
        wide["num_key_value_heads"] = wide["num_attention_heads"]
    text = {"text_config": widened(config["text_config"])} if "text_config" in config else {}
    return config | wide | text


# What llama.cpp runs and its converter does not make.
NOT_CONVERTED = {
    "granite-llama3-rope",  # factors of Llama 3's kind
    "gpt-neox",  # transformers 5 renamed a setting that the converter asks for
    "gpt-neox-serial-tied",
    "olmo2-tied",  # llama.cpp wants the output matrix, and the converter leaves it out
    "olmo3-tied",
    "nemotron-tied",
    "stablelm-parallel",  # the converter fails on its normalised heads
    "cohere-normed",  # 64 layers, and nothing else of its own
    "exaone4",
    "phi",  # the converter takes a feed-forward network of four times the width for granted
    "phi-grouped",
    "nemotron-h",  # beside transformers 5 the converter takes it for a model with experts
    "nemotron-h-short",
    "hunyuan-stretched",  # the converter insists on the settings of the published ones
    "hunyuan-moe-stretched",
    "lfm2-moe-untied",  # it has no name for an output matrix of this family
    "ernie4.5-moe-untied",  # it derives the width of shared experts from the number of heads
}
WIDE_MODELS = {
    tiny.name: replace(tiny, config=widened(tiny.config)) for tiny in TINY_MODELS if tiny.name not in NOT_CONVERTED
}


OLDER_KINDS = {"linear_attention": "mamba", "full_attention": "attention"}  # what the converter goes by


def save_wide(tiny: TinyModel, folder: Path) -> Path:
    """Return the folder, with one layer that guesses ahead if the family counts them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Casting complex values")  # Llama 4's rotary table, not stored
        tiny.build().to(torch.bfloat16).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    older = {"n_ctx": config["n_positions"]} if "n_positions" in config else {}  # names that the converter asks for
    rope = config.get("rope_parameters") or {}
    older |= {"rotary_pct": rope.get("partial_rotary_factor", 1.0)} if config["model_type"] == "cohere2" else {}
    if config["model_type"] == "hunyuan_v1_moe":
        per_layer = {"moe_intermediate_size": config["intermediate_size"], "moe_topk": config["moe_topk"]}
        per_layer["num_shared_expert"] = 1
        older |= {key: [value] * config["num_hidden_layers"] for key, value in per_layer.items()}
    if config["model_type"] == "qwen3_vl_moe":
        _turn_experts(folder)
    if config["model_type"] == "granitemoehybrid":
        older |= {"layer_types": [OLDER_KINDS[kind] for kind in config["layer_types"]]}
    (folder / "config.json").write_text(json.dumps(config | older))
    vocabulary = {f"token {number}": number for number in range(VOCABULARY)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": []}))
    key = find_architecture(config).next_token_key
    if key:
        _add_layer_ahead(folder, with_setting(config, key, 1))
    return folder


def _turn_experts(folder: Path) -> None:
    """As they are published, and as the converter takes them"""
    tensors = load_file(folder / "model.safetensors")
    turned = {name: each.mT.contiguous() if ".experts." in name else each for name, each in tensors.items()}
    save_file(turned, folder / "model.safetensors", {"format": "pt"})


def _add_layer_ahead(folder: Path, config: dict[str, Any]) -> None:
    architecture = find_architecture(config)
    tensors = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(4)
    model = architecture.dimensions(architecture.metadata(config))
    for entry in architecture.entries(model):
        absent = entry.row.when and not architecture.configuration(config).flag(entry.row.when)
        if entry.model.layer != model.layers or absent:
            continue
        for spelled in list(entry.spellings())[-1:]:
            shape = entry.source_shape
            if len(spelled) > 1:
                shape = (int(torch.tensor(shape[:-1]).prod()) // len(spelled), shape[-1])
            for name in spelled:
                tensors[name] = torch.randn(shape, generator=generator).to(torch.bfloat16)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
