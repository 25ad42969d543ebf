"""Embedding models, rerankers, parts and generators of pictures are told apart from what can chat, by their content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from thriftbit.containers.gguf_reader import read_gguf
from thriftbit.library.content import gguf_content
from thriftbit.library.inventory import take_inventory
from thriftbit.library.kinds import (
    ADAPTER,
    CONTROL,
    DRAFT,
    EMBEDDING,
    ENCODER,
    IMAGE,
    IMPORTANCE,
    KINDS,
    OTHER,
    RERANKER,
    SPEECH,
    TEXT,
    TEXT_DIFFUSION,
    TRANSLATOR,
    VISION,
    VOCABULARY,
    cannot,
    folder_kind,
    hub_kind,
)

from .disk import write_checkpoint, write_raw_gguf

Tensors = dict[str, tuple[int, int, str]]
LAYERS: Tensors = {"token_embd.weight": (64, 32, "F16"), "blk.0.attn_q.weight": (32, 32, "F16")}


def kind_of(folder: Path, keys: dict[str, Any], tensors: Tensors) -> str:
    return gguf_content([read_gguf(write_raw_gguf(folder / "a.gguf", keys, tensors))]).kind


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        ("llama", TEXT), ("qwen35moe", TEXT), ("mamba2", TEXT), ("brand-new-2027", TEXT),
        *((name, EMBEDDING) for name in ("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3")),
        *((name, EMBEDDING) for name in ("modern-bert", "neo-bert", "eurobert", "gemma-embedding", "llama-embed")),
        ("t5encoder", ENCODER), ("t5", TRANSLATOR), ("clip", VISION), ("controlvector", CONTROL),
        ("dream", TEXT_DIFFUSION), ("llada", TEXT_DIFFUSION), ("eagle3", DRAFT), ("gemma4-assistant", DRAFT),
        ("wavtokenizer-dec", SPEECH), ("flux", IMAGE), ("wan", IMAGE), ("sdxl", IMAGE), ("imatrix", IMPORTANCE),
    ],
)  # fmt: skip
def test_the_architecture_tells(tmp_path: Path, architecture: str, kind: str) -> None:
    assert kind_of(tmp_path, {"general.architecture": architecture}, LAYERS) == kind


@pytest.mark.parametrize(
    ("keys", "tensors", "kind"),
    [
        ({"qwen3.pooling_type": 3}, LAYERS, EMBEDDING),
        ({"qwen3.pooling_type": 0}, LAYERS, TEXT),
        ({"qwen3.pooling_type": 4}, LAYERS, RERANKER),
        ({}, LAYERS | {"cls.output.weight": (2, 32, "F16")}, RERANKER),
        ({"qwen3.attention.causal": 0}, LAYERS, EMBEDDING),
        ({"general.type": "adapter"}, LAYERS, ADAPTER),
        ({}, {"blk.0.attn_q.weight.lora_a": (32, 8, "F16"), "blk.0.attn_q.weight.lora_b": (8, 32, "F16")}, ADAPTER),
        ({}, {"token_embd.weight": (64, 32, "F16"), "blk.28.nextn.eh_proj.weight": (32, 32, "F16")}, DRAFT),
        ({}, {"blk.28.nextn.eh_proj.weight": (32, 32, "F16")}, DRAFT),
        ({}, {"double_blocks.0.img_attn.qkv.weight": (32, 32, "F16")}, IMAGE),
        ({}, {"encoder.conv.weight": (32, 32, "F16")}, OTHER),
        ({}, {"token_embd.weight": (64, 32, "F16")}, VOCABULARY),
        ({}, {}, VOCABULARY),
    ],
)
def test_keys_and_tensors_tell(tmp_path: Path, keys: dict[str, Any], tensors: Tensors, kind: str) -> None:
    assert kind_of(tmp_path, {"general.architecture": "qwen3"} | keys, tensors) == kind


@pytest.mark.parametrize(
    ("name", "names", "kind"),
    [
        ("LlamaForCausalLM", (), TEXT), ("LlamaModel", (), TEXT), ("Qwen3Model", ("modules.json",), EMBEDDING),
        ("Qwen3ForCausalLM", ("1_Pooling",), EMBEDDING), ("BertModel", (), EMBEDDING),
        ("XLMRobertaModel", (), EMBEDDING), ("ModernBertForMaskedLM", (), EMBEDDING), ("NomicBertModel", (), EMBEDDING),
        ("XLMRobertaForSequenceClassification", (), RERANKER), ("T5EncoderModel", (), ENCODER),
        ("T5ForConditionalGeneration", (), TRANSLATOR), ("Gemma3ForConditionalGeneration", (), TEXT),
        ("WhisperForConditionalGeneration", (), SPEECH), ("CLIPModel", (), VISION),
        ("FluxTransformer2DModel", (), IMAGE), ("StableDiffusionPipeline", ("model_index.json",), IMAGE),
        ("LlamaForCausalLM", ("adapter_config.json",), ADAPTER),
    ],
)  # fmt: skip
def test_a_configuration_tells(name: str, names: tuple[str, ...], kind: str) -> None:
    assert folder_kind({"architectures": [name]}, names) == kind


@pytest.mark.parametrize(
    ("task", "architecture", "file", "kind"),
    [
        ("text-generation", "llama", "a-Q4_K_M.gguf", TEXT), (None, None, "", TEXT),
        ("feature-extraction", None, "", EMBEDDING), (None, "nomic-bert", "a.gguf", EMBEDDING),
        ("text-ranking", "qwen3", "a.gguf", RERANKER), ("text-to-image", "flux", "a.gguf", IMAGE),
        ("text-generation", "qwen3", "mtp-a-Q8_0.gguf", DRAFT), ("text-generation", "qwen3", "mmproj-F16.gguf", VISION),
    ],
)  # fmt: skip
def test_what_the_hub_says_tells(task: str | None, architecture: str | None, file: str, kind: str) -> None:
    assert hub_kind(task, architecture, file) == kind


def test_every_kind_says_what_it_is_and_what_works(tmp_path: Path) -> None:
    for kind in KINDS:
        message = str(cannot(kind, tmp_path / "my model.gguf", "cannot chat"))
        assert message.startswith(f"{tmp_path}/my model.gguf is ") and "cannot chat" in message
        assert "FILE" not in message.replace(f"'{tmp_path}/my model.gguf'", "")


def test_a_folder_is_not_given_to_a_program_that_takes_files(tmp_path: Path) -> None:
    folder = tmp_path / "bge-m3"
    folder.mkdir()
    message = str(cannot("embedding", folder, "`thriftbit fit` is for models that write text"))
    assert "llama-server -m FILE --embeddings, where FILE is a GGUF of it." in message
    assert f"-m {folder}" not in message and "`thriftbit find bge-m3`" in message
    assert "llama-server -m FILE --embeddings" in str(cannot("embedding", "BAAI/bge-m3", "it cannot chat"))


def test_find_lists_them_as_what_they_are_and_hides_parts(home: Path) -> None:
    write_raw_gguf(home / "work/nomic-F16.gguf", {"general.architecture": "nomic-bert", "general.file_type": 1}, LAYERS)
    write_raw_gguf(home / "work/mmproj.gguf", {"general.architecture": "clip"}, LAYERS)
    write_checkpoint(home / "work/bge", {"architectures": ["BertModel"]}, {"a.weight": ("F32", (8, 8))})
    models = {model.name: model for model in take_inventory().models}
    assert {name: model.kind for name, model in models.items()} == {
        "nomic-F16.gguf": EMBEDDING, "mmproj.gguf": VISION, "bge": EMBEDDING,
    }  # fmt: skip
    assert [model.is_whole for model in models.values()] == [KINDS[model.kind].is_whole for model in models.values()]
    assert models["nomic-F16.gguf"].label == "F16"
