"""Whatever a person calls a model leads to it, or to a sentence that helps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from huggingface_hub import constants

from thriftbit.errors import ThriftbitError, UsageError
from thriftbit.library.aliases import read_aliases, remove_alias, set_alias
from thriftbit.library.finding import find
from thriftbit.library.locate import locate

from .disk import into_hub_cache, into_ollama, write_checkpoint, write_gguf
from .fake_hub import FakeHub, Repository

PLAIN = {"model.layers.0.mlp.up_proj.weight": ("BF16", (64, 64))}


@pytest.fixture
def full_disk(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home with a model in every program's store."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("THRIFTBIT_DATA", str(home / "data"))
    hub = {f"Tiny-{level}.gguf": write_gguf(home / "scratch.gguf", level, seed=level.encode()) for level in ("Q4_K_M",)}
    hub["Tiny-Q8_0.gguf"] = write_gguf(home / "scratch2.gguf", "Q8_0", layer_type="Q8_0")
    into_hub_cache(home / ".cache/huggingface/hub", "unsloth/Tiny-GGUF", hub)
    into_ollama(home / ".ollama/models", "library/qwen2.5:1.5b", write_gguf(home / "b.gguf", layers=2))
    into_ollama(home / ".ollama/models", "library/phi:latest", write_gguf(home / "p.gguf", layers=9))
    write_gguf(home / ".lmstudio/models/publisher/Mini-GGUF/Mini-Q4_K_M.gguf", layers=6)
    write_gguf(home / "work/here-Q4_K_M.gguf", layers=8)
    write_checkpoint(home / "work/original", {}, PLAIN)
    for file in ("scratch.gguf", "scratch2.gguf", "b.gguf", "p.gguf"):
        (home / file).unlink()
    return home


def test_every_name_that_find_prints_can_be_typed(full_disk: Path) -> None:
    found = find(local=True).local
    assert len(found) == 7
    for finding in found:
        located = locate(finding.name).source
        assert finding.path is not None and Path(located).samefile(finding.path), finding.name


@pytest.mark.parametrize(
    ("typed", "file"),
    [
        ("work/here-Q4_K_M.gguf", "here-Q4_K_M.gguf"), ("here-Q4_K_M", "here-Q4_K_M.gguf"), ("here", "here-Q4_K_M"),
        ("unsloth/Tiny-GGUF:Q4_K_M", "Tiny-Q4_K_M.gguf"), ("unsloth/tiny-gguf:q8_0", "Tiny-Q8_0.gguf"),
        ("unsloth/Tiny-GGUF:Tiny-Q8_0.gguf", "Tiny-Q8_0.gguf"), ("unsloth/Tiny-GGUF", "Tiny-Q4_K_M.gguf"),
        ("hf.co/unsloth/Tiny-GGUF:Q8_0", "Tiny-Q8_0.gguf"), ("tiny:Q8_0", "Tiny-Q8_0.gguf"),
        ("https://huggingface.co/unsloth/Tiny-GGUF/blob/main/Tiny-Q8_0.gguf", "Tiny-Q8_0.gguf"),
        ("qwen2.5:1.5b", "sha256-"), ("phi", "sha256-"), ("qwen2.5", "sha256-"), ("mini", "Mini-Q4_K_M.gguf"),
        ("publisher/Mini-GGUF", "Mini-Q4_K_M.gguf"), ("original", "original"),
    ],
)  # fmt: skip
def test_a_name_leads_to_its_model(full_disk: Path, typed: str, file: str) -> None:
    path = Path(locate(str(full_disk / typed) if typed.startswith("work/") else typed).source)
    assert path.name.startswith(file) and path.exists()


def test_several_models_of_that_name_are_listed(full_disk: Path) -> None:
    with pytest.raises(UsageError, match=r"2 models here are called 'tiny'") as raised:
        locate("tiny")
    assert "unsloth/Tiny-GGUF/Tiny-Q8_0.gguf" in str(raised.value)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("her-Q4_K_M.gguf", r"Similar names here: here-Q4_K_M.gguf"),
        ("./here-Q4_K_S.gguf", r"\./here-Q4_K_S.gguf: no such file. Similar names here: here-Q4_K_M.gguf"),
        ("qwen2.5:7b", r"Similar names here: qwen2.5:1.5b"),
        ("completely-different", r"`thriftbit ls` lists the models here"),
        ("unsloth/Tiny-GGUF:Q2_K", r"has no file of level 'Q2_K'; it has Q4_K_M, Q8_0"),
        ("zephyr:99b", r"`ollama pull zephyr:99b`"),
        ("a" * 5000, r"no model here"),
        ("", r"no model is named"),
    ],
)
def test_a_miss_names_what_is_near(full_disk: Path, typed: str, message: str) -> None:
    with pytest.raises(ThriftbitError, match=message):
        locate(typed)


def test_nothing_on_the_disk(home: Path) -> None:
    with pytest.raises(ThriftbitError, match="no model is on this disk"):
        locate("anything")


def test_a_file_that_others_link_to_keeps_the_name_nearest_to_the_user(home: Path) -> None:
    """`export` gives a file a second name in another program's folder: here it must not vanish."""
    mine = write_gguf(home / "work/mine-Q4_K_M.gguf")
    other = home / ".lmstudio/models/thriftbit/mine-GGUF/mine-Q4_K_M.gguf"
    other.parent.mkdir(parents=True)
    os.link(mine, other)
    (finding,) = find(local=True).local
    assert (finding.name, finding.where) == ("mine-Q4_K_M.gguf", "this folder")
    assert finding.aliases == ("thriftbit/mine-GGUF/mine-Q4_K_M.gguf",)
    assert mine.samefile(locate("thriftbit/mine-GGUF/mine-Q4_K_M.gguf").source)


def test_aliases(full_disk: Path) -> None:
    set_alias("qwen", str(full_disk / "work/here-Q4_K_M.gguf"))
    assert locate("qwen").source == str(full_disk / "work/here-Q4_K_M.gguf")
    with pytest.raises(ThriftbitError, match="Similar names here: qwen"):
        locate("qwenn")
    (full_disk / "work/here-Q4_K_M.gguf").unlink()
    with pytest.raises(UsageError, match="thriftbit alias rm qwen"):
        locate("qwen")
    assert remove_alias("qwen").endswith("here-Q4_K_M.gguf") and read_aliases() == {}
    with pytest.raises(UsageError, match="there is no alias 'qwen'"):
        remove_alias("qwen")


@pytest.mark.parametrize("name", ["a/b", "", "-x", "a b", "x" * 70, "original", "\x1b[31m"])
def test_what_cannot_be_an_alias(full_disk: Path, name: str) -> None:
    with pytest.raises(UsageError):
        set_alias(name, "/tmp/a.gguf")


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', '{"../x": "y"}', "[" * 100_000, "\x00"])
def test_a_damaged_list_of_aliases_is_empty(home: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setenv("THRIFTBIT_DATA", str(home))
    (home / "aliases.json").write_text(content)
    assert read_aliases() == {}


SIZES = {f"big/M-{level}.gguf": size * 10**9 for level, size in (("Q8_0", 8), ("Q4_K_M", 5), ("Q2_K", 3))}


def test_a_repository_on_the_hub(home: Path, hub: FakeHub, told: list[str]) -> None:
    hub.repositories["owner/M-GGUF"] = Repository({**SIZES, "mmproj-F16.gguf": 10, "README.md": 3}, gguf={})
    hub.repositories["owner/Both"] = Repository({"config.json": 9, "model.safetensors": 99, "M-Q4_K_M.gguf": 50})
    located = locate("owner/M-GGUF:q2_k")
    assert (located.source, located.files, located.size_bytes) == (
        "owner/M-GGUF/big/M-Q2_K.gguf", ("big/M-Q2_K.gguf",), 3 * 10**9,
    )  # fmt: skip
    assert locate("owner/M-GGUF/big/M-Q8_0.gguf").size_bytes == 8 * 10**9
    assert locate("owner/M-GGUF").is_remote
    assert "3 GGUF files" in told[-1] and "is taken" in told[-1]
    assert locate("owner/Both").source == "owner/Both"
    assert locate("owner/Both", to_run=True).source == "owner/Both/M-Q4_K_M.gguf"
    with pytest.raises(UsageError, match=r"no file of level 'Q3_K_M'; it has Q2_K, Q4_K_M, Q8_0"):
        locate("owner/M-GGUF:Q3_K_M")


def test_every_name_of_the_hub_that_find_prints_can_be_typed(home: Path, hub: FakeHub) -> None:
    hub.repositories["owner/M-GGUF"] = Repository(SIZES, gguf={"total": 8 * 10**9, "architecture": "llama"})
    found = find(["m"]).hub
    assert len(found) == 3
    for finding in found:
        assert locate(finding.name).source == finding.name
        typed = finding.command.removeprefix("thriftbit chat ")
        assert locate(typed).source == finding.name
