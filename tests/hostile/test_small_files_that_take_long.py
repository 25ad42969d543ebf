"""Files of megabytes that would take minutes or gigabytes: refused by their counts, and told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thriftbit.containers import gguf_reader
from thriftbit.containers.entry import Entry
from thriftbit.errors import ThriftbitError
from thriftbit.formats import format_named
from thriftbit.machine.memory_needed import memory_needed
from thriftbit.machine.model_shape import shape_of
from thriftbit.sources.json_object import SMALL_JSON_LIMIT_BYTES
from thriftbit.sources.open_model import open_model
from thriftbit.sources.tokenizers import byte_pair


@pytest.fixture
def folder(tiny_llama: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_llama, tmp_path / "model")
    return tmp_path / "model"


def refusal(path: Path) -> str:
    with pytest.raises(ThriftbitError) as caught:
        open_model(path)
    assert len(str(caught.value).splitlines()) <= 2
    return str(caught.value)


def test_a_config_of_megabytes(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    config["more"] = [{}] * (SMALL_JSON_LIMIT_BYTES // 3)
    (folder / "config.json").write_text(json.dumps(config))
    assert "config.json is larger than 8.39 MB, which no file of this kind is" in refusal(folder)


def test_an_index_of_more_files_than_any_model_has(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    shards = {f"t{number}": f"model-{number}.safetensors" for number in range(5000)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert "names more than 4,096 files with weights, which no model has" in refusal(folder)


@pytest.mark.parametrize(("what", "limit"), [("tokens", "_MOST_TOKENS"), ("merges", "_MOST_MERGES")])
def test_more_tokens_or_merges_than_any_model_has(
    folder: Path, what: str, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(byte_pair, limit, 100)
    path = folder / "tokenizer.json"
    tokenizer: dict[str, Any] = json.loads(path.read_bytes())
    tokenizer["model"]["merges"] = [["a", "b"]] * 101
    path.write_text(json.dumps(tokenizer))
    assert f"{what}, more than any real model" in refusal(folder)


def test_the_limits_are_above_what_models_have() -> None:
    assert byte_pair._MOST_TOKENS > 3 * 262_144 and byte_pair._MOST_MERGES > 3 * 514_906
    assert gguf_reader.KEY_LIMIT > 1000 and gguf_reader.TENSOR_LIMIT > 100_000


@pytest.mark.parametrize("value", [np.int32(-5), np.uint64(2**63), np.array([4, -1], np.int32), "4", np.float32(4)])
@pytest.mark.parametrize("key", ["attention.head_count", "context_length", "block_count", "attention.head_count_kv"])
def test_a_count_that_is_none_gives_no_petabytes(key: str, value: Any) -> None:
    metadata = {
        "llama.block_count": np.uint32(2),
        "llama.context_length": np.uint32(512),
        "llama.embedding_length": np.uint32(64),
        "llama.attention.head_count": np.uint32(4),
        "llama.attention.head_count_kv": np.uint32(4),
    }
    entries = [Entry("token_embd.weight", (100, 64), format_named("F32"))]
    memory_needed(shape_of("llama", metadata, entries), 512)
    with pytest.raises(ThriftbitError, match=f"llama.{key} is .*, and should be a whole number: the file is damaged"):
        shape_of("llama", {**metadata, f"llama.{key}": value}, entries)
