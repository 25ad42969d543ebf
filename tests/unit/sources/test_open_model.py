"""What a model's name means, and the whole model that comes of it."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from thriftbit.errors import ThriftbitError
from thriftbit.sources.model import Model
from thriftbit.sources.open_model import open_model

from .fake_hub import COMMIT, REPOSITORY, FakeHub, is_large

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 257,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}
SHAPES = {
    "model.embed_tokens.weight": (257, 8),
    "model.norm.weight": (8,),
    "model.layers.0.input_layernorm.weight": (8,),
    "model.layers.0.post_attention_layernorm.weight": (8,),
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
    "model.layers.0.self_attn.k_proj.weight": (4, 8),
    "model.layers.0.self_attn.v_proj.weight": (4, 8),
    "model.layers.0.self_attn.o_proj.weight": (8, 8),
    "model.layers.0.mlp.gate_proj.weight": (16, 8),
    "model.layers.0.mlp.up_proj.weight": (16, 8),
    "model.layers.0.mlp.down_proj.weight": (8, 16),
}
CARD = """---
license: apache-2.0
language: [en, no]
---
# Tiny
"""


def weights() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {name: generator.standard_normal(shape).astype(np.float16) for name, shape in SHAPES.items()}


def tokenizer_json() -> str:
    """Return a byte-level tokenizer without merges: 256 bytes and an end of text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: index for index, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer.to_str()


def model_files() -> dict[str, bytes]:
    return {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": save(weights()),
        "tokenizer.json": tokenizer_json().encode(),
        "tokenizer_config.json": json.dumps({"eos_token": "<|endoftext|>"}).encode(),
        "README.md": CARD.encode(),
    }


def write_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in model_files().items():
        (folder / name).write_bytes(content)
    return folder


def write_gguf(path: Path) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("token_embd.weight", np.ones((4, 32), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def assert_is_the_model(model: Model) -> None:
    assert model.architecture == "llama"
    assert model.metadata["llama.block_count"] == np.uint32(1)
    assert model.metadata["tokenizer.ggml.model"] == "gpt2"
    assert model.metadata["general.license"] == "apache-2.0"
    assert not model.quantized_source
    by_name = {tensor.name: tensor for tensor in model.tensors}
    assert len(by_name) == len(SHAPES)
    assert by_name["blk.0.ffn_down.weight"].role == "ffn-down"
    expected = weights()["model.embed_tokens.weight"].astype(np.float32)
    np.testing.assert_array_equal(by_name["token_embd.weight"].load(), expected)


def test_a_folder(tmp_path: Path, told: list[str]) -> None:
    folder = write_folder(tmp_path / "tiny-model")
    model = open_model(folder)
    assert told == []
    assert_is_the_model(model)
    assert model.source == str(folder)
    assert model.metadata["general.name"] == "Tiny Model"
    assert "general.architecture" not in model.metadata


def test_a_folder_under_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "tiny")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert_is_the_model(open_model("~/tiny"))


def test_a_folder_comes_before_a_hub_id_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "owner" / "name")
    monkeypatch.chdir(tmp_path)
    assert_is_the_model(open_model("owner/name"))


@pytest.mark.parametrize("name", ["model.gguf", "sha256-0123456789abcdef"])
def test_a_gguf_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    model = open_model(write_gguf(tmp_path / name))
    assert [tensor.name for tensor in model.tensors] == ["token_embd.weight"]


def test_a_hub_id(fake_hub: FakeHub, told: list[str]) -> None:
    fake_hub.files = model_files()
    model = open_model(REPOSITORY)
    assert_is_the_model(model)
    assert model.source == REPOSITORY
    assert model.metadata["general.name"] == "Tiny Model"
    assert model.metadata["general.organization"] == "Tester"
    assert model.metadata["general.source.repo_url"] == f"https://huggingface.co/{REPOSITORY}"
    assert len(told) == 1


def test_an_unknown_architecture_on_the_hub_costs_no_download(fake_hub: FakeHub) -> None:
    config = CONFIG | {"architectures": ["TimeMachineForCausalLM"], "model_type": "time_machine"}
    fake_hub.files = model_files() | {"config.json": json.dumps(config).encode()}
    with pytest.raises(ThriftbitError, match="TimeMachineForCausalLM"):
        open_model(REPOSITORY)
    assert not any(is_large(name) for name, _, _ in fake_hub.served)


def test_a_hub_id_offline_from_a_cache_that_others_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--owner--tiny-llama"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for name, content in model_files().items():
        (repository / "blobs" / f"blob-of-{name}").write_bytes(content)
        (snapshot / name).symlink_to(f"../../blobs/blob-of-{name}")
    model = open_model("owner/tiny-llama", offline=True)
    assert_is_the_model(model)
    assert model.metadata["general.name"] == "Tiny Llama"


def shards(folder: Path, tensors: dict[str, np.ndarray], **promised: str) -> None:
    """The weights in one shard, whose index names other tensors too"""
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "one.safetensors")
    weight_map = dict.fromkeys(tensors, "one.safetensors") | promised
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_an_index_that_names_the_output_matrix_of_a_tied_model(tmp_path: Path) -> None:
    write_folder(tmp_path)
    shards(tmp_path, weights(), **{"lm_head.weight": "one.safetensors"})
    assert "output.weight" not in {tensor.name for tensor in open_model(tmp_path).tensors}


def test_a_tensor_that_the_model_needs_and_only_the_index_has(tmp_path: Path) -> None:
    write_folder(tmp_path)
    held = weights()
    del held["model.norm.weight"]
    shards(tmp_path, held, **{"model.norm.weight": "one.safetensors"})
    with pytest.raises(ThriftbitError, match=r"missing \(model.norm.weight\)[^\n]*\none.safetensors does not hold"):
        open_model(tmp_path)


@pytest.mark.parametrize("named", ["LlamaForCausalLM", "LlamaModel"])
def test_names_of_a_bare_model(tmp_path: Path, named: str) -> None:
    write_folder(tmp_path)
    expected = [tensor.name for tensor in open_model(tmp_path).tensors]
    bare = {name.removeprefix("model."): values for name, values in weights().items()}
    save_file(bare, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"architectures": [named]}))
    assert [tensor.name for tensor in open_model(tmp_path).tensors] == expected


@pytest.mark.parametrize("constant", ["NaN", "Infinity"])
def test_a_number_that_is_none_is_refused_where_it_matters(tmp_path: Path, constant: str) -> None:
    write_folder(tmp_path)
    text = json.dumps(CONFIG | {"initializer_range": "?"}).replace('"?"', constant)
    (tmp_path / "config.json").write_text(text)
    open_model(tmp_path)
    (tmp_path / "config.json").write_text(text.replace('"rms_norm_eps": 1e-05', f'"rms_norm_eps": {constant}'))
    with pytest.raises(ThriftbitError, match="rms_norm_eps should be a number"):
        open_model(tmp_path)


def test_no_tokenizer(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ThriftbitError, match="has no tokenizer"):
        open_model(folder)


def test_shapes_that_contradict_the_configuration(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny")
    (folder / "config.json").write_text(json.dumps(CONFIG | {"intermediate_size": 24}))
    with pytest.raises(ThriftbitError, match=r"mlp\.gate_proj\.weight"):
        open_model(folder)


def test_a_tensor_that_nobody_knows_is_not_dropped(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny")
    save_file(weights() | {"model.secret.weight": np.ones((2, 2), np.float16)}, folder / "model.safetensors")
    with pytest.raises(ThriftbitError, match=r"model\.secret\.weight"):
        open_model(folder)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("model.safetensors", b"", "is a part of a checkpoint: give its folder"),
        ("pytorch_model.bin", b"PK\x03\x04", "stores its weights as pickle"),
        ("model.gguf", b"", "not a GGUF file"),
        ("notes.txt", b"hello", "not a GGUF file"),
    ],
)
def test_files_of_other_kinds(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ThriftbitError, match=reason) as caught:
        open_model(path)
    assert str(tmp_path) in str(caught.value)


def test_names_of_nothing(tmp_path: Path) -> None:
    for source in (tmp_path / "absent", "no such model", "./owner/name", "name"):
        with pytest.raises(
            ThriftbitError, match=r"does not exist; a model is a folder, a GGUF file, or a name"
        ) as caught:
            open_model(source)
        assert str(source) in str(caught.value)


def test_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    link = tmp_path / "model.gguf"
    link.symlink_to(link)
    with pytest.raises(ThriftbitError, match="symbolic links"):
        open_model(link)


STRANGE = (None, True, -1, 1.5, 1e308, 1 << 70, "", "x", "\ud800", [], [1], {}, {"a": 1}, [[]], {"type": "x"})


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_setting_of_a_strange_kind_is_refused_or_harmless(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path / "tiny")
    whole = json.loads((folder / name).read_text())
    refused = 0
    for key in whole:
        for value in STRANGE:
            (folder / name).write_text(json.dumps(whole | {key: value}))
            try:
                open_model(folder)
            except ThriftbitError:
                refused += 1
    assert refused > 0
