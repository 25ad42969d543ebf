"""Models on a disk that is laid out as programs lay theirs out."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from thriftbit.library.header_cache import VERSION, HeaderCache
from thriftbit.library.inventory import Inventory, LocalModel, matches, take_inventory

from .disk import into_hub_cache, into_ollama, write_checkpoint, write_gguf

PLAIN = {"model.layers.0.mlp.up_proj.weight": ("BF16", (64, 64))}


def by_name(inventory: Inventory) -> dict[str, LocalModel]:
    found = {model.name: model for model in inventory.models}
    assert len(found) == len(inventory.models)
    return found


def test_an_empty_disk(home: Path) -> None:
    assert take_inventory() == Inventory((), ())


def test_every_place_is_searched(home: Path) -> None:
    gguf = write_gguf(home / "scratch.gguf")
    into_hub_cache(home / ".cache/huggingface/hub", "unsloth/Tiny-GGUF", {"Tiny-Q4_K_M.gguf": gguf})
    into_ollama(home / ".ollama/models", "library/tiny:1b", write_gguf(home / "b.gguf", layers=2))
    into_ollama(home / ".ollama/models", "someone/other:v1", write_gguf(home / "c.gguf", layers=3))
    into_ollama(home / ".ollama/models", "unsloth/T-GGUF:Q4_K_M", write_gguf(home / "d.gguf", layers=5), host="hf.co")
    write_gguf(home / ".lmstudio/models/publisher/Tiny-GGUF/Tiny-Q4_K_M.gguf", layers=6)
    write_gguf(home / ".cache/lm-studio/models/old/Tiny/Tiny-Q8_0.gguf", "Q8_0", layer_type="Q8_0")
    write_gguf(home / ".cache/llama.cpp/owner_Tiny_Tiny-Q4_K_M.gguf", layers=7)
    write_checkpoint(home / "mine/deep/er/Tiny-1B", {}, PLAIN)
    write_gguf(home / "work/here-Q4_K_M.gguf", layers=8)
    (home / "config.toml").write_text('[library]\nfolders = ["~/mine"]\n')
    models = by_name(take_inventory())
    assert {name: model.place for name, model in models.items()} == {
        "unsloth/Tiny-GGUF/Tiny-Q4_K_M.gguf": "Hugging Face",
        "tiny:1b": "Ollama",
        "someone/other:v1": "Ollama",
        "hf.co/unsloth/T-GGUF:Q4_K_M": "Ollama",
        "publisher/Tiny-GGUF/Tiny-Q4_K_M.gguf": "LM Studio",
        "old/Tiny/Tiny-Q8_0.gguf": "LM Studio",
        "owner_Tiny_Tiny-Q4_K_M.gguf": "llama.cpp",
        "~/mine/deep/er/Tiny-1B": "own folder",
        "here-Q4_K_M.gguf": "this folder",
    }
    assert all(model.problem is None and model.warning is None for model in models.values())
    assert models["~/mine/deep/er/Tiny-1B"].label == "BF16, original"


def test_places_that_the_environment_moves(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(home / "o"))
    monkeypatch.setenv("LLAMA_CACHE", str(home / "l"))
    monkeypatch.setenv("HF_HUB_CACHE", str(home / "h"))
    into_ollama(home / "o", "library/tiny:1b", write_gguf(home / "b.gguf", layers=2))
    write_gguf(home / "l/a.gguf")
    into_hub_cache(home / "h", "owner/x", {"x.gguf": write_gguf(home / "c.gguf", layers=3)})
    assert set(by_name(take_inventory())) == {"tiny:1b", "a.gguf", "owner/x/x.gguf"}


def test_split_files_are_one(home: Path) -> None:
    for number in (1, 2, 3):
        write_gguf(
            home / f"work/big-Q4_K_M-{number:05d}-of-00003.gguf",
            layers=number,
            metadata={"split.no": number - 1, "split.count": 3},
        )
    (model,) = take_inventory().models
    assert model.problem is None
    assert model.content is not None and model.content.parts == 3
    assert model.size_bytes == sum(file.stat().st_size for file in (home / "work").iterdir())


def test_a_missing_part_is_told(home: Path) -> None:
    metadata = {"split.no": 0, "split.count": 2}
    write_gguf(home / "work/big-Q4_K_M-00001-of-00002.gguf", metadata=metadata)
    (model,) = take_inventory().models
    assert model.content is None
    assert "missing beside it: big-Q4_K_M-00002-of-00002.gguf" in (model.problem or "")


def test_tags_of_one_model_are_its_names(home: Path) -> None:
    gguf = write_gguf(home / "b.gguf")
    for tag in ("library/tiny:1b", "library/tiny:latest"):
        into_ollama(home / ".ollama/models", tag, gguf)
    (model,) = take_inventory().models
    assert (model.name, model.aliases) == ("tiny:1b", ("tiny:latest",))


def test_manifests_that_are_no_gguf(home: Path) -> None:
    root = home / ".ollama/models/manifests/registry.ollama.ai/library"
    (root / "a").mkdir(parents=True)
    (root / "a/broken").write_text("{")
    (root / "a/tensors").write_text(json.dumps({"layers": [{"mediaType": "application/vnd.ollama.image.tensor"}]}))
    (root / "a/empty").write_text("{}")
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../../etc/passwd"}
    (root / "a/forged").write_text(json.dumps({"layers": [layer, 7]}))
    gone = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{'a' * 64}"}
    (root / "a/gone").write_text(json.dumps({"layers": [gone]}))
    problems = {model.name: model.problem or "" for model in take_inventory().models}
    assert set(problems) == {"a:broken", "a:tensors", "a:forged", "a:gone"}
    assert "is not valid JSON" in problems["a:broken"]
    assert "`ollama show`" in problems["a:tensors"]
    assert "names no blob" in problems["a:forged"]
    assert "No such file" in problems["a:gone"]


def test_the_same_bytes_are_one_model_with_copies(home: Path) -> None:
    gguf = write_gguf(home / "work/a.gguf")
    same = home / "work/b.gguf"
    same.write_bytes(gguf.read_bytes())
    blob = into_ollama(home / ".ollama/models", "library/tiny:1b", gguf)
    write_gguf(home / "work/other.gguf", seed=b"other weights")  # the same header, the same size
    models = by_name(take_inventory())
    assert set(models) == {"a.gguf", "other.gguf"}
    assert models["a.gguf"].copies == (same, blob)
    assert models["other.gguf"].copies == ()


def test_bytes_that_differ_where_nobody_samples_are_not_the_same(home: Path) -> None:
    """Only a hash of everything can tell them apart."""
    one = write_gguf(home / "work/one.gguf", layers=6)
    two = home / "work/two.gguf"
    raw = bytearray(one.read_bytes())
    raw[len(raw) // 32] ^= 1  # between the first sample and the second
    two.write_bytes(raw)
    assert len(take_inventory().models) == 2
    two.write_bytes(one.read_bytes())
    assert len(take_inventory().models) == 1


def test_links_are_not_copies(home: Path) -> None:
    gguf = write_gguf(home / "work/a.gguf")
    (home / "work/b.gguf").symlink_to(gguf)
    os.link(gguf, home / "work/c.gguf")
    (model,) = take_inventory().models
    assert (model.name, model.copies) == ("a.gguf", ())


def test_old_snapshots_do_not_repeat_a_model(home: Path) -> None:
    cache, gguf = home / ".cache/huggingface/hub", write_gguf(home / "a.gguf")
    for commit in ("a" * 40, "b" * 40):
        into_hub_cache(cache, "owner/x", {"x.gguf": gguf, "README.md": commit.encode()}, commit)
    assert len(take_inventory().models) == 1


def test_a_configuration_without_weights_is_no_model(home: Path) -> None:
    """`quantize` and `fit` fetch configurations first."""
    into_hub_cache(home / ".cache/huggingface/hub", "owner/x", {"config.json": b"{}", "tokenizer.json": b"{}"})
    assert take_inventory().models == ()


def test_pickles_are_listed_and_not_opened(home: Path) -> None:
    (home / "work/old").mkdir()
    (home / "work/old/config.json").write_text("{}")
    (home / "work/old/pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    (model,) = take_inventory().models
    assert "runs any code that is in it" in (model.problem or "")


def test_folders_that_go_round_in_circles(home: Path) -> None:
    write_gguf(home / "mine/a/x.gguf")
    (home / "mine/a/back").symlink_to(home / "mine")
    (home / "config.toml").write_text('[library]\nfolders = ["~/mine"]\n')
    assert len(take_inventory().models) == 1


def test_the_current_folder_is_not_searched_to_the_bottom(home: Path) -> None:
    write_gguf(home / "work/1/2/3/4/near.gguf")
    write_gguf(home / "work/1/2/3/4/5/far.gguf", layers=2)
    write_gguf(home / "work/.hidden/secret.gguf", layers=3)
    write_gguf(home / "work/node_modules/x.gguf", layers=5)
    assert [model.name for model in take_inventory().models] == ["1/2/3/4/near.gguf"]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("[library\n", "is not valid TOML"),
        ("[library]\nfolders = 7\n", "should say folders"),
        ('[library]\nfolders = ["~/nowhere"]\n', "is not a folder"),
        ("library = 1\n", "should say folders"),
    ],
)
def test_a_wrong_configuration_is_told_and_the_rest_found(home: Path, text: str, warning: str) -> None:
    (home / "config.toml").write_text(text)
    write_gguf(home / "work/a.gguf")
    inventory = take_inventory()
    assert len(inventory.models) == 1
    assert warning in inventory.warnings[0]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(home: Path) -> None:
    folder = home / "work/closed"
    folder.mkdir(mode=0)
    try:
        assert "cannot be read" in take_inventory().warnings[0]
    finally:
        folder.chmod(0o700)


def test_the_second_time_no_header_is_opened(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for layers in range(2, 6):
        write_gguf(home / f"work/{layers}.gguf", layers=layers)
    (home / "work/broken.gguf").write_bytes(b"GGUF\x03")
    first = take_inventory()
    monkeypatch.setattr("thriftbit.library.inventory.read_gguf", pytest.fail)
    assert take_inventory() == first


def test_a_changed_file_is_read_anew(home: Path) -> None:
    path = write_gguf(home / "work/a.gguf", "Q4_K_M")
    assert take_inventory().models[0].label == "Q4_K_M"
    write_gguf(path, "Q8_0", layer_type="Q8_0")
    assert take_inventory().models[0].label == "Q8_0"


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[]", b"null", b'{"version": 1}', b'{"version": 99, "files": {}}', b'{"version":1,"files":[]}'],
)
def test_a_cache_that_is_damaged_is_as_none(home: Path, content: bytes) -> None:
    write_gguf(home / "work/a.gguf")
    cache = home / "thriftbit-cache/library.json"
    cache.parent.mkdir()
    cache.write_bytes(content)
    assert take_inventory().models[0].label == "Q4_K_M"
    assert json.loads(cache.read_text())["version"] == VERSION


def test_records_of_another_shape_are_read_anew(home: Path) -> None:
    path = write_gguf(home / "work/a.gguf")
    take_inventory()
    cache = home / "thriftbit-cache/library.json"
    document = json.loads(cache.read_text())
    document["files"][str(path)]["content"] = {"what": "is this"}
    cache.write_text(json.dumps(document))
    assert take_inventory().models[0].label == "Q4_K_M"


def test_a_cache_that_cannot_be_written_does_no_harm(home: Path) -> None:
    write_gguf(home / "work/a.gguf")
    (home / "file").write_text("")
    assert len(take_inventory(cache=HeaderCache(home / "file" / "library.json")).models) == 1


def test_files_that_are_gone_leave_the_cache(home: Path) -> None:
    path = write_gguf(home / "work/a.gguf")
    write_gguf(home / "work/b.gguf", layers=2)
    take_inventory()
    path.unlink()
    write_gguf(home / "work/c.gguf", layers=3)
    take_inventory()
    kept = json.loads((home / "thriftbit-cache/library.json").read_text())["files"]
    assert {Path(key).name for key in kept} == {"b.gguf", "c.gguf"}


def test_hundreds_of_files_of_one_vocabulary_take_a_moment(home: Path) -> None:
    tokens = [f"token {number}" for number in range(50_000)]
    for layers in range(2, 202):
        write_gguf(home / f"work/{layers}.gguf", layers=layers, tokens=10, metadata={"tokenizer.ggml.tokens": tokens})  # type: ignore[dict-item]
    start = time.perf_counter()
    assert len(take_inventory().models) == 200
    assert time.perf_counter() - start < 20  # taking every vocabulary apart takes more than a minute under load


@pytest.mark.parametrize(
    ("words", "name", "expected"),
    [
        (["qwen3", "8b"], "unsloth/Qwen3-8B-GGUF", True),
        (["qwen3-8b"], "unsloth/Qwen3-8B-GGUF", True),
        (["QWEN3 8B"], "unsloth/Qwen3_8B-GGUF", True),
        (["8b"], "Llama-18B", False),
        (["8b"], "Llama-1.8B", False),
        (["3b"], "qwen3:30b", False),
        (["3b"], "llama3.2:3b-instruct", True),
        (["qwen3"], "Qwen3.5-9B", True),
        (["qwen2"], "Qwen25-7B", False),
        (["llama", "q4_k_m"], "llama-2-7b.Q4_K_M.gguf", True),
        (["gemma"], "Llama", False),
        ([], "anything", True),
        (["--"], "anything", True),
        (["(.*"], "anything", False),
    ],
)
def test_words(words: list[str], name: str, expected: bool) -> None:
    assert matches(words, name) == expected
