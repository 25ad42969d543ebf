"""Model folders that are incomplete, contradictory or malicious: refused before any weight is read, with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from thriftbit.errors import ThriftbitError
from thriftbit.sources.checkpoint import open_checkpoint

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def write_config(folder: Path, config: Any = None) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} if config is None else config))


def write_weights(folder: Path, shard: str, *names: str) -> None:
    save_file({name: np.ones((2, 4), np.float32) for name in names}, folder / shard)


def write_index(folder: Path, weight_map: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def nothing(folder: Path) -> None:
    pass


def no_config(folder: Path) -> None:
    write_weights(folder, "model.safetensors", "a")


def only_an_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def config_text(text: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        (folder / "config.json").write_text(text)
        write_weights(folder, "model.safetensors", "a")

    return prepare


def config_loop(folder: Path) -> None:
    (folder / "config.json").symlink_to("config.json")


def files(*names: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        write_config(folder)
        for name in names:
            (folder / name).write_bytes(b"never opened")

    return prepare


def index(weight_map: Any) -> Callable[[Path], None]:
    """The first shard holds "a"; there is no second one."""

    def prepare(folder: Path) -> None:
        write_config(folder)
        write_weights(folder, FIRST, "a")
        write_index(folder, weight_map)

    return prepare


def index_text(text: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        write_config(folder)
        (folder / "model.safetensors.index.json").write_text(text)

    return prepare


def tensor_in_two_shards(folder: Path) -> None:
    write_config(folder)
    write_weights(folder, FIRST, "a", "b")
    write_weights(folder, SECOND, "b", "c")
    write_index(folder, {"a": FIRST, "b": FIRST, "c": SECOND})


def weights_loop(folder: Path) -> None:
    write_config(folder)
    (folder / "model.safetensors").symlink_to("other")
    (folder / "other").symlink_to("model.safetensors")


def shard_dangling(folder: Path) -> None:
    index({"a": FIRST, "b": SECOND})(folder)
    (folder / SECOND).symlink_to("../blobs/not-downloaded")


def weights_that_are_a_folder(folder: Path) -> None:
    write_config(folder)
    (folder / "model.safetensors").mkdir()


def no_tensors(folder: Path) -> None:
    write_config(folder)
    save_file({}, folder / "model.safetensors")


# what is wrong -> (how to make it, what the error says)
BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty folder": (nothing, "is empty"),
    "no config": (no_config, "has no config.json"),
    "adapter": (only_an_adapter, "merge it into its base model"),
    "config not JSON": (config_text("model_type: llama"), "config.json is not valid JSON"),
    "config a list": (config_text("[]"), "config.json should hold a JSON object, not a list"),
    "config nested deeply": (config_text("[" * 100_000), "config.json is nested too deeply"),
    "config with a key twice": (config_text('{"a": 1, "a": 2}'), "'a' appears twice"),
    "config a loop of links": (config_loop, "symbolic links"),
    "no weights": (files("tokenizer.json"), "holds no weights"),
    "two files, no index": (files("a.safetensors", "b.safetensors"), "has 2 safetensors files"),
    "pickle": (files("pytorch_model.bin"), "stores its weights as pickle (pytorch_model.bin)"),
    "pickle of Meta": (files("consolidated.00.pth"), "runs any code that is in it"),
    "pickle of Lightning": (files("last.ckpt"), "save_pretrained"),
    "pickle, pt": (files("model.pt"), "stores its weights as pickle"),
    "not the pickle of weights": (files("training_args.bin"), "holds no weights"),
    "GGUF in the folder": (files("m.Q4_K_M.gguf"), "give one of them as the model (m.Q4_K_M.gguf)"),
    "index not JSON": (index_text("{"), "index.json is not valid JSON"),
    "index without map": (index_text("{}"), "has no weight_map"),
    "index with a list": (index_text('{"weight_map": ["a"]}'), "has no weight_map"),
    "index with an empty map": (index({}), "has no weight_map"),
    "missing shard": (index({"a": FIRST, "b": SECOND}), f"1 of its 2 shards missing: {SECOND}"),
    "shard that is a number": (index({"a": 1}), "'a' is in 1, which is no file of this folder"),
    "shard above": (index({"a": "../" + FIRST}), "which is no file of this folder"),
    "shard above, for Windows": (index({"a": "..\\" + FIRST}), "which is no file of this folder"),
    "shard of another drive": (index({"a": "C:" + FIRST}), "which is no file of this folder"),
    "shard at an absolute path": (index({"a": "/etc/passwd"}), "'/etc/passwd', which is no file of this folder"),
    "shard called ..": (index({"a": ".."}), "which is no file of this folder"),
    "shard with a zero byte": (index({"a": "x\0.safetensors"}), "which is no file of this folder"),
    "shard with a terminal's escape": (index({"a": "\x1b[2J.safetensors"}), "which is no file of this folder"),
    "shard that is a pickle": (index({"a": "pytorch_model.bin"}), "stores its weights as pickle"),
    "shard without name": (index({"a": ""}), "which is no file of this folder"),
    "tensor in two shards": (tensor_in_two_shards, "'b' is both in"),
    "loop of links": (weights_loop, "symbolic links"),
    "shard not downloaded": (shard_dangling, f"{SECOND} is a symbolic link to a file that is not there"),
    "weights a folder": (weights_that_are_a_folder, "not a regular file"),
    "no tensors": (no_tensors, "holds no tensors"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_folders_are_refused_with_the_reason(tmp_path: Path, kind: str) -> None:
    prepare, reason = BROKEN[kind]
    prepare(tmp_path)
    with pytest.raises(ThriftbitError) as caught:
        open_checkpoint(tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert reason in message
    assert message.count("\n") <= 1


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    file, loop = tmp_path / "file", tmp_path / "loop"
    file.touch()
    loop.symlink_to(loop)
    for path in (file, loop, tmp_path / "absent"):
        with pytest.raises(ThriftbitError, match="is not a folder"):
            open_checkpoint(path)


def test_a_dangling_tokenizer_is_not_taken_for_an_absent_one(tmp_path: Path) -> None:
    write_config(tmp_path)
    write_weights(tmp_path, "model.safetensors", "a")
    (tmp_path / "tokenizer.json").symlink_to("nowhere")
    with pytest.raises(ThriftbitError, match=r"tokenizer\.json is a symbolic link to a file that is not there"):
        open_checkpoint(tmp_path).file("tokenizer.json")
