"""The `general.*` metadata: from card, configuration, name and weights, and from cards that are broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thriftbit.containers.gguf_values import MetadataValue
from thriftbit.sources.checkpoint import Checkpoint
from thriftbit.sources.model_card import general_metadata, size_label
from thriftbit.sources.tensor import FloatArray, Tensor


def unread(start: int, stop: int) -> FloatArray:
    raise AssertionError("metadata needs no weights")


def tensor(*shape: int) -> Tensor:
    return Tensor("t", shape, "F32", unread)


def metadata_of(folder: Path, card: str = "", config: dict[str, Any] | None = None) -> dict[str, MetadataValue]:
    if card:
        (folder / "README.md").write_text(card, encoding="utf-8")
    return general_metadata(Checkpoint(folder, config or {}, {}), [tensor(1000, 2000)], pytest.fail)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "SmolLM2-135M-instruct").mkdir()
    return tmp_path / "SmolLM2-135M-instruct"


def test_without_a_card_the_folder_names_the_model(folder: Path) -> None:
    assert metadata_of(folder) == {
        "general.type": "model",
        "general.name": "SmolLM2 135M Instruct",
        "general.size_label": "2.0M",
    }


def test_the_configuration_may_know_the_repository(folder: Path) -> None:
    metadata = metadata_of(folder, config={"_name_or_path": "mistralai/Mistral-7B-v0.1"})
    assert metadata["general.name"] == "Mistral 7B v0.1"
    assert metadata["general.organization"] == "Mistralai"
    assert metadata["general.source.repo_url"] == "https://huggingface.co/mistralai/Mistral-7B-v0.1"


@pytest.mark.parametrize("path", ["/home/me/model", "./model", "C:\\model", "checkpoint-500", 7, None])
def test_a_path_in_the_configuration_is_nobodys_business(folder: Path, path: object) -> None:
    metadata = metadata_of(folder, config={"_name_or_path": path})
    assert metadata["general.name"] == "SmolLM2 135M Instruct"
    assert str(path) not in json.dumps(metadata, default=str)


def test_a_card(folder: Path) -> None:
    card = """---
model_name: Tiny
model_creator: Somebody
license: [mit, apache-2.0]
license_link: https://example.org/licence
language:
- en
- no
version: 1.10
tags: [chat, 2024-01-01]
pipeline_tag: text-generation
base_model:
- HuggingFaceTB/SmolLM2-135M
- https://huggingface.co/owner/other-model
- https://example.org/model
- just a name
datasets: HuggingFaceTB/smoltalk
model-index:
- name: ignored
---
# Title
license: not this
"""
    metadata = metadata_of(folder, card)
    expected = {
        "general.type": "model",
        "general.name": "Tiny",
        "general.author": "Somebody",
        "general.license": "mit, apache-2.0",
        "general.license.link": "https://example.org/licence",
        "general.languages": ["en", "no"],
        "general.version": "1.10",
        "general.tags": ["chat", "2024-01-01", "text-generation"],
        "general.size_label": "2.0M",
        "general.base_model.count": 4,
        "general.base_model.0.name": "SmolLM2 135M",
        "general.base_model.0.organization": "HuggingFaceTB",
        "general.base_model.0.repo_url": "https://huggingface.co/HuggingFaceTB/SmolLM2-135M",
        "general.base_model.1.name": "Other Model",
        "general.base_model.1.organization": "Owner",
        "general.base_model.1.repo_url": "https://huggingface.co/owner/other-model",
        "general.base_model.2.repo_url": "https://example.org/model",
        "general.base_model.3.name": "just a name",
        "general.dataset.count": 1,
        "general.dataset.0.name": "Smoltalk",
        "general.dataset.0.organization": "HuggingFaceTB",
        "general.dataset.0.repo_url": "https://huggingface.co/datasets/HuggingFaceTB/smoltalk",
    }
    assert metadata == expected
    assert isinstance(metadata["general.base_model.count"], np.uint32)


@pytest.mark.parametrize("card", ["# Title\n", "---\nlicense: mit\n", "", "---", "---\n---\n"])
def test_a_card_without_front_matter_is_no_card(folder: Path, card: str) -> None:
    assert set(metadata_of(folder, card)) == {"general.type", "general.name", "general.size_label"}


@pytest.mark.parametrize(
    "front_matter",
    [
        "license: [mit",
        "- mit",
        "license: &a [*a, *b]",
        "? [" * 3000,
        "!!python/object/apply:os.system ['true']",
        "a: \x01",
    ],
)
def test_a_card_that_cannot_be_read_costs_a_warning(folder: Path, front_matter: str) -> None:
    (folder / "README.md").write_text(f"---\n{front_matter}\n---\n")
    said: list[str] = []
    metadata = general_metadata(Checkpoint(folder, {}, {}), [tensor(10, 10)], said.append)
    assert "general.license" not in metadata
    assert len(said) == 1
    assert "README.md cannot be read" in said[0]


def test_values_of_strange_kinds_are_left_out_and_texts_can_be_written(folder: Path) -> None:
    card = '---\nlicense: {a: b}\nmodel_name: "a\\ud800b"\ntags: [[nested], {}, " ", ok]\nbase_model: {}\n---\n'
    metadata = metadata_of(folder, card)
    assert metadata["general.name"] == "ab"
    assert metadata["general.tags"] == ["ok"]
    assert not any(key.startswith(("general.license", "general.base_model")) for key in metadata)


def test_recommended_sampling(folder: Path) -> None:
    settings = {"temperature": 0.6, "top_k": 20, "top_p": True, "min_p": "x", "repetition_penalty": 1e300}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    sampling = {key: value for key, value in metadata_of(folder).items() if key.startswith("general.sampling")}
    assert sampling == {"general.sampling.temp": np.float32(0.6), "general.sampling.top_k": np.int32(20)}
    assert isinstance(sampling["general.sampling.top_k"], np.int32)


@pytest.mark.parametrize(
    ("shapes", "label"),
    [
        ([(500,)], "0.5K"),
        ([(134_515, 1000)], "135M"),
        ([(1_544, 1000, 1)[:2], (1000, 1000)], "2.5M"),
        ([(1_543_714, 1000)], "1.5B"),
        ([(70_553, 1_000_000)], "71B"),
        ([(1_600_000, 1000), (8, 5_640, 1_000_000)], "8x7.2B"),
    ],
)
def test_size_labels(shapes: list[tuple[int, ...]], label: str) -> None:
    assert size_label([tensor(*shape) for shape in shapes]) == label
