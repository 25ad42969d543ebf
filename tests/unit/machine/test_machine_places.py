"""Folders of models and programs that run them, in a home folder made for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from recorded import RecordedSurroundings

from thriftbit.machine.bandwidth import BandwidthProbe, beyond_caches_bytes, spread_of
from thriftbit.machine.disk_speed import disk_read_rate
from thriftbit.machine.model_folders import folder_size, found_caches, model_folders
from thriftbit.machine.programs import found_programs


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTBIT_CACHE", str(tmp_path / "elsewhere"))


def test_model_folders_are_found_and_named_without_the_user(tmp_path: Path) -> None:
    home, disk = tmp_path / "jane", tmp_path / "disk-of-jane"
    for folder in (
        home / ".cache/huggingface/hub",
        home / ".ollama/models",
        home / ".lmstudio/models",
        disk / "llama",
    ):
        folder.mkdir(parents=True)
    found = model_folders({"LLAMA_CACHE": str(disk / "llama")}, home)
    assert {(folder.name, folder.shown) for folder in found} == {
        ("Hugging Face", "~/.cache/huggingface/hub"),
        ("Ollama", "~/.ollama/models"),
        ("LM Studio", "~/.lmstudio/models"),
        ("llama.cpp", "$LLAMA_CACHE"),
    }
    assert all(cache.size_bytes.value == 0 and "jane" not in cache.where for cache in found_caches(found))


def test_a_variable_moves_a_folder(tmp_path: Path) -> None:
    (tmp_path / "hf" / "hub").mkdir(parents=True)
    (tmp_path / "jane").mkdir()
    (found,) = model_folders({"HF_HOME": str(tmp_path / "hf")}, tmp_path / "jane")
    assert (found.path, found.shown) == (tmp_path / "hf" / "hub", "$HF_HOME/hub")


def test_a_file_that_is_linked_counts_once(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "a").write_bytes(bytes(1000))
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "model.gguf").symlink_to(tmp_path / "blobs" / "a")
    os.link(tmp_path / "blobs" / "a", tmp_path / "snapshot" / "b")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert folder_size(tmp_path).value == 1000


def test_a_folder_that_cannot_be_counted_says_why(tmp_path: Path) -> None:
    assert folder_size(tmp_path / "gone").reason == "part of it may not be read"
    assert folder_size(tmp_path, patience_seconds=-1).reason == "too many files to count quickly"


def test_programs_are_found_on_the_path_and_where_installers_put_them(tmp_path: Path) -> None:
    ollama, lms = tmp_path / "bin" / "ollama", tmp_path / "home" / ".lmstudio" / "bin" / "lms"
    for program in (ollama, lms):
        program.parent.mkdir(parents=True)
        program.touch()
    answers = {f"$ {ollama}": "ollama version is 0.5.7"}
    machine = RecordedSurroundings("Linux", "6", "x86_64", "/", answers)
    which = {"ollama": str(ollama)}.get
    found = {each.name: each for each in found_programs(machine, {}, tmp_path / "home", which)}
    assert found["Ollama"].version.value == "0.5.7"
    assert found["LM Studio"].where == "~/.lmstudio/bin/lms"
    assert found["LM Studio"].version.value is None


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("version: 4567 (abcdef01)\nbuilt with cc for x86_64-linux-gnu", "4567"),
        ("ggml_cuda_init: found 1 CUDA devices\nversion: 6000 (0a1b2c3)", "6000"),
        ("illegal instruction", None),
    ],
)
def test_versions_of_llama_server(tmp_path: Path, printed: str, version: str | None) -> None:
    program = tmp_path / "llama-server"
    program.touch()
    machine = RecordedSurroundings("Linux", "6", "x86_64", "/", {f"$ {program}": printed})
    (found,) = found_programs(machine, {}, tmp_path, {"llama-server": str(program)}.get)
    assert found.version.value == version


def test_bandwidth_is_that_of_memory() -> None:
    """No memory reads slower than 100 MB/s nor faster than 5 TB/s"""
    found = BandwidthProbe(64 << 20).measure(2)
    assert found.threads == 2
    spread = found.bytes_per_second
    assert 1e8 < spread.low <= spread.median <= spread.high < 5e12


def test_what_is_read_is_beyond_caches_and_within_memory() -> None:
    mebi = 1 << 20
    assert beyond_caches_bytes(32 * mebi, 16 << 30) == 128 * mebi
    assert beyond_caches_bytes(None, None) == 64 * mebi
    assert beyond_caches_bytes(1024 * mebi, 64 << 30) == 1024 * mebi
    assert beyond_caches_bytes(32 * mebi, 200 * mebi) == 50 * mebi


def test_quartiles() -> None:
    spread = spread_of([4, 1, 2, 3, 5])
    assert (spread.low, spread.median, spread.high) == (2, 3, 4)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no number there")
def test_the_disk_is_read_and_nothing_stays(tmp_path: Path) -> None:
    spread = disk_read_rate(tmp_path, 96 << 20, 30)
    assert spread is not None and 1e5 < spread.low <= spread.median <= spread.high
    assert list(tmp_path.iterdir()) == []


def test_a_disk_too_slow_or_forbidden_has_no_number(tmp_path: Path) -> None:
    assert disk_read_rate(tmp_path, 96 << 20, 0.0) is None
    assert disk_read_rate(tmp_path / "gone", 1 << 20, 1.0) is None
    assert list(tmp_path.iterdir()) == []
