"""Opening model folders: which file holds the weights, and what else is in there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from thriftbit.sources.checkpoint import open_checkpoint

CONFIG = {"model_type": "llama", "text_config": {"hidden_size": 4}}


def weights(*names: str) -> dict[str, np.ndarray]:
    return {name: np.full((2, 4), len(name), np.float32) for name in names}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def write_shards(folder: Path, shards: dict[str, list[str]]) -> None:
    for shard, names in shards.items():
        save_file(weights(*names), folder / shard)
    weight_map = {name: shard for shard, names in shards.items() for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_one_file(folder: Path) -> None:
    save_file(weights("a", "bb"), folder / "model.safetensors")
    checkpoint = open_checkpoint(folder)
    assert checkpoint.path == folder
    assert checkpoint.config == CONFIG
    assert checkpoint.tensors.keys() == {"a", "bb"}
    np.testing.assert_array_equal(checkpoint.tensors["bb"].load(), weights("bb")["bb"])


def test_shards(folder: Path) -> None:
    write_shards(folder, {"model-00001-of-00002.safetensors": ["a", "bb"], "model-00002-of-00002.safetensors": ["ccc"]})
    checkpoint = open_checkpoint(folder)
    assert checkpoint.tensors.keys() == {"a", "bb", "ccc"}
    for name, tensor in checkpoint.tensors.items():
        np.testing.assert_array_equal(tensor.load(), weights(name)[name])


def test_a_tensor_that_the_index_forgot_is_not_dropped(folder: Path) -> None:
    write_shards(folder, {"model-00001-of-00001.safetensors": ["a"]})
    save_file(weights("a", "extra"), folder / "model-00001-of-00001.safetensors")
    assert open_checkpoint(folder).tensors.keys() == {"a", "extra"}


def test_a_tensor_that_the_index_names_and_no_shard_holds_is_noted(folder: Path) -> None:
    """Whether the model needs it is not for the folder to say: the output matrix of a tied model is not missed."""
    save_file(weights("a"), folder / "one.safetensors")
    weight_map = {"a": "one.safetensors", "lm_head.weight": "one.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    checkpoint = open_checkpoint(folder)
    assert checkpoint.tensors.keys() == {"a"}
    assert checkpoint.withdrawn == {"lm_head.weight": "one.safetensors"}


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_constants_that_python_writes_into_json(folder: Path, constant: str) -> None:
    (folder / "config.json").write_text(f'{{"initializer_range": {constant}}}')
    save_file(weights("a"), folder / "model.safetensors")
    assert repr(open_checkpoint(folder).config["initializer_range"]) == repr(float(constant))


def test_the_single_file_comes_before_the_index(folder: Path) -> None:
    write_shards(folder, {"model-00001-of-00001.safetensors": ["sharded"]})
    save_file(weights("single"), folder / "model.safetensors")
    assert open_checkpoint(folder).tensors.keys() == {"single"}


def test_a_lone_file_of_another_name(folder: Path) -> None:
    save_file(weights("a"), folder / "weights.safetensors")
    assert open_checkpoint(folder).tensors.keys() == {"a"}


def test_shards_that_are_links_out_of_the_folder(tmp_path: Path) -> None:
    """The Hub's cache keeps contents in blobs/ and links them into snapshots/."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0123"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    save_file(weights("a"), blobs / "f00d")
    (blobs / "beef").write_text(json.dumps(CONFIG))
    (snapshot / "model.safetensors").symlink_to("../../blobs/f00d")
    (snapshot / "config.json").symlink_to("../../blobs/beef")
    assert open_checkpoint(snapshot).tensors.keys() == {"a"}


def test_other_files_are_found_by_name(folder: Path) -> None:
    save_file(weights("a"), folder / "model.safetensors")
    (folder / "tokenizer.json").write_text("{}")
    checkpoint = open_checkpoint(folder)
    assert checkpoint.file("tokenizer.json") == folder / "tokenizer.json"
    assert checkpoint.file("tokenizer.model") is None
    assert checkpoint.file("../" + folder.name + "/tokenizer.json") is None


@pytest.mark.parametrize(
    "quantization",
    [None, {}, {"quant_method": "bitsandbytes", "load_in_4bit": False, "load_in_8bit": False}],
)
def test_quantization_settings_without_effect_are_harmless(
    folder: Path, quantization: dict[str, object] | None
) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | {"quantization_config": quantization}))
    save_file(weights("a"), folder / "model.safetensors")
    assert open_checkpoint(folder).tensors.keys() == {"a"}


def test_pickles_beside_safetensors_do_not_matter(folder: Path) -> None:
    save_file(weights("a"), folder / "model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    assert open_checkpoint(folder).tensors.keys() == {"a"}
