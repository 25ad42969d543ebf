"""`rm` removes what was meant and nothing else, and says what it frees; `ls`, `pull`, `alias` and `cache`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from thriftbit.cli import commands
from thriftbit.errors import ThriftbitError, UsageError
from thriftbit.library.aliases import read_aliases
from thriftbit.library.kept import clear, kept
from thriftbit.library.removing import removal_of

from .disk import into_hub_cache, into_ollama, write_checkpoint, write_gguf
from .fake_hub import FakeHub, Repository

PLAIN = {"model.layers.0.mlp.up_proj.weight": ("BF16", (64, 64))}


@pytest.fixture(autouse=True)
def own_data(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTBIT_DATA", str(home / "data"))


def invoke(*arguments: str, catch_exceptions: bool = True) -> Result:
    return CliRunner().invoke(commands, arguments, catch_exceptions=catch_exceptions)


def test_a_file_of_ones_own(home: Path) -> None:
    path = write_gguf(home / "work/mine-Q4_K_M.gguf")
    size_bytes = path.stat().st_size
    assert invoke("alias", "set", "mine", "mine-Q4_K_M.gguf").exit_code == 0
    removal = removal_of("mine")
    assert (removal.paths, removal.freed_bytes, removal.aliases) == ((path,), size_bytes, ("mine",))
    refused = invoke("rm", "mine")
    assert isinstance(refused.exception, UsageError) and path.exists()
    assert "Removed." in invoke("rm", "mine", "--yes").output
    assert not path.exists() and read_aliases() == {}


def test_a_second_name_goes_and_the_file_stays(home: Path) -> None:
    mine = write_gguf(home / "work/mine-Q4_K_M.gguf")
    other = home / ".lmstudio/models/thriftbit/mine-GGUF/mine-Q4_K_M.gguf"
    other.parent.mkdir(parents=True)
    os.link(mine, other)
    removal = removal_of("thriftbit/mine-GGUF/mine-Q4_K_M.gguf")
    assert (removal.paths, removal.freed_bytes) == ((other,), 0)
    assert removal.also_called == ("mine-Q4_K_M.gguf (this folder)",)
    removal.run()
    assert mine.exists() and not other.exists()
    assert removal_of("mine").freed_bytes == mine.stat().st_size


def test_a_split_file_goes_whole(home: Path) -> None:
    for number in (1, 2):
        write_gguf(home / f"work/big-{number:05d}-of-00002.gguf", metadata={"split.no": number - 1, "split.count": 2})
    removal_of("big-00001-of-00002.gguf").run()
    assert not list((home / "work").iterdir())


def test_the_hubs_cache(home: Path) -> None:
    large, small = write_gguf(home / "s.gguf"), write_gguf(home / "t.gguf", "Q2_K", layer_type="Q2_K")
    files = {"M-Q4_K_M.gguf": large, "M-Q2_K.gguf": small}
    snapshot = into_hub_cache(home / ".cache/huggingface/hub", "o/M-GGUF", files)
    blob = (snapshot / "M-Q2_K.gguf").resolve()
    removal = removal_of("o/M-GGUF:Q2_K")
    assert removal.paths == (snapshot / "M-Q2_K.gguf", blob)
    assert blob.stat().st_size <= removal.freed_bytes < blob.stat().st_size + 1000
    removal.run()
    assert not blob.exists() and (snapshot / "M-Q4_K_M.gguf").exists()
    removal_of("o/M-GGUF").run()
    assert not snapshot.parent.parent.exists()


def test_a_repository_of_safetensors(home: Path) -> None:
    folder = write_checkpoint(home / "c", {}, PLAIN)
    files = {path.name: path for path in folder.iterdir()}
    snapshot = into_hub_cache(home / ".cache/huggingface/hub", "o/M", files)
    removal = removal_of("o/M")
    assert removal.paths == (snapshot.parent.parent,)
    removal.run()
    assert not snapshot.exists()


def test_what_is_left_to_others(home: Path) -> None:
    blob = into_ollama(home / ".ollama/models", "library/tiny:1b", write_gguf(home / "b.gguf"))
    with pytest.raises(ThriftbitError, match="ollama rm tiny:1b"):
        removal_of("tiny:1b")
    folder = write_checkpoint(home / "work/model", {}, PLAIN)
    (folder / "thesis.docx").write_text("years of work")
    with pytest.raises(ThriftbitError, match=r"holds more than a model \(thesis.docx\)"):
        removal_of("model")
    (folder / "thesis.docx").unlink()
    assert removal_of("model").paths == (folder,)
    with pytest.raises(ThriftbitError, match="no model here is called 'absent'"):
        removal_of("absent")
    (home / "work/notes.txt").write_text("notes")
    with pytest.raises(UsageError, match="not a model that Thriftbit knows"):
        removal_of("notes.txt")
    assert blob.exists() and folder.exists()


def test_a_folder_that_somebody_is_in(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_checkpoint(home / "work/model", {}, PLAIN)
    monkeypatch.chdir(folder)
    with pytest.raises(ThriftbitError, match="the current folder"):
        removal_of(str(folder))


def test_ls_tells_kinds_sizes_places_and_aliases(home: Path) -> None:
    write_gguf(home / "work/mine-Q4_K_M.gguf")
    write_gguf(home / "work/emb-Q8_0.gguf", "Q8_0", layer_type="Q8_0", metadata={"llama.pooling_type": 1})
    invoke("alias", "set", "short", "mine-Q4_K_M.gguf")
    output = invoke("ls").output
    assert "mine-Q4_K_M.gguf" in output and "this folder" in output and "short" in output
    assert "embedding" in output and "Q8_0" in output
    assert '"kind": "embedding"' in invoke("ls", "emb", "--json").output
    assert "has these words" in invoke("ls", "banana").output


def test_the_cache_is_listed_and_cleared(home: Path) -> None:
    cache = home / "thriftbit-cache"
    for name in ("calibration/a/moments.bin", "map/b/map.json", "measurements.jsonl", "machine/profile.json", "odd"):
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_bytes(b"x" * 1000)
    assert {each.name: each.size_bytes for each in kept()} == {
        "calibrations": 1000, "maps": 1000, "measurements": 1000, "profile": 1000, "other": 1000,
    }  # fmt: skip
    assert "calibrations" in invoke("cache").output
    assert isinstance(invoke("cache", "clear").exception, UsageError) and len(kept()) == 5
    assert "Cleared calibrations, maps" in invoke("cache", "clear", "--yes").output
    assert {each.name for each in kept()} == {"measurements", "profile", "other"}
    clear("measurements")
    assert {each.name for each in kept()} == {"profile", "other"}
    with pytest.raises(UsageError, match="'banana' is not one of the names here: calibrations"):
        clear("banana")


def test_pull_of_what_is_not_there(home: Path, hub: FakeHub) -> None:
    hub.repositories["o/M-GGUF"] = Repository({"M-Q2_K.gguf": 10, "M-Q8_0.gguf": 20}, gguf={})
    with pytest.raises(UsageError, match="it has Q2_K, Q8_0"):
        invoke("pull", "o/M-GGUF:Q3_K_M", catch_exceptions=False)
    with pytest.raises(ThriftbitError, match="no model here is called"):
        invoke("pull", "banana?", catch_exceptions=False)
