"""Whatever is private is its user's alone: files 0600 in folders 0700, also those that an older version left wide."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from thriftbit.errors import ThriftbitError
from thriftbit.library.artefacts import MadeOf
from thriftbit.library.header_cache import HeaderCache
from thriftbit.machine.corrections import Run, record
from thriftbit.machine.private_files import open_private, private_folder, write_private
from thriftbit.machine.profile import Profile, store_profile
from thriftbit.measurement.store import append_lines, store_path
from thriftbit.quantization.journal import Journal
from thriftbit.quantization.rounded import Rounded
from thriftbit.runtime.examine import examine
from thriftbit.side_by_side.votes import Vote, append, votes_path


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THRIFTBIT_CACHE", str(tmp_path / "there" / "cache"))
    monkeypatch.setenv("THRIFTBIT_DATA", str(tmp_path / "there" / "data"))
    return tmp_path / "there"


def readable_by_others(root: Path) -> list[str]:
    paths = [root, *root.rglob("*")]
    return [str(path.relative_to(root.parent)) for path in paths if path.stat().st_mode & 0o077]


def vote() -> None:
    append(Vote("a", "b", "a.gguf", "b.gguf", "original", 0.0, "2026-11-27T18:00:00+00:00"))


def look_at_a_file(roots: Path) -> None:
    file = roots.parent / "model.gguf"
    file.write_bytes(b"GGUF")
    cache = HeaderCache()
    cache.hash(file, "sha256", lambda: "0")
    cache.save()


def rounded_in(folder: Path) -> None:
    made = MadeOf("tuning", "m", {})
    made.write(folder)
    Rounded(folder, made).keep("blk.0", np.zeros((2, 2), np.uint8))


WRITERS: dict[str, Callable[[Path], object]] = {
    "measurements": lambda roots: append_lines(b"{}\n", store_path(), "measurements"),
    "votes": lambda roots: vote(),
    "runs": lambda roots: record([Run("decode_rate", 1.0, 1.0, "")]),
    "profile": lambda roots: store_profile(Profile(examine())),
    "headers": look_at_a_file,
    "journal": lambda roots: Journal(roots / "cache" / "map" / "m" / "map.jsonl").once("a", lambda: 1),
    "rounded": lambda roots: Rounded(roots / "cache" / "tuning" / "t", MadeOf("tuning", "m", {})).keep(
        "blk.0", np.zeros((2, 2), np.uint8)
    ),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_what_is_kept_is_private(roots: Path, write: Callable[[Path], object]) -> None:
    write(roots)
    kept = [path for path in roots.rglob("*") if path.is_file()]
    assert kept and readable_by_others(roots) == []


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_what_an_older_version_left_wide_is_narrowed(roots: Path, write: Callable[[Path], object]) -> None:
    write(roots)
    for path in [roots, *roots.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    write(roots)
    # the folders that the variables name may be needed by others, and keep their mode
    wide = {path for path in readable_by_others(roots) if not path.endswith(".lock")}
    assert wide <= {"there", "there/cache", "there/data"}


def test_the_usual_folders_are_narrowed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("THRIFTBIT_CACHE", "THRIFTBIT_DATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    old = tmp_path / "cache" / "thriftbit" / "calibration" / "a" / "windows.npy"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"token ids of the user's text")
    append_lines(b"{}\n", store_path(), "measurements")
    vote()
    assert readable_by_others(tmp_path / "cache" / "thriftbit") == []
    assert readable_by_others(tmp_path / "data" / "thriftbit") == []
    assert votes_path().is_file()


def test_a_folder_that_somebody_else_uses_keeps_its_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "theirs").write_bytes(b"")
    monkeypatch.setenv("THRIFTBIT_CACHE", str(shared))
    append_lines(b"{}\n", store_path(), "measurements")
    assert shared.stat().st_mode & 0o777 == 0o755
    assert (shared / "theirs").stat().st_mode & 0o777 == 0o644
    assert store_path().stat().st_mode & 0o777 == 0o600


def test_links_out_of_the_cache_are_not_followed(roots: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_bytes(b"")
    folder = roots / "cache" / "map"
    folder.mkdir(parents=True)
    (folder / "link").symlink_to(theirs)
    private_folder(folder)
    assert theirs.stat().st_mode & 0o777 == 0o644


def test_a_cache_that_cannot_be_made_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ThriftbitError, match="set THRIFTBIT_CACHE"):
        private_folder(tmp_path / "file" / "cache")
    with pytest.raises(ThriftbitError):
        write_private(tmp_path / "file" / "cache" / "a", b"")


@pytest.mark.parametrize("mode", ["ab+", "rb", "wb"])
def test_a_pipe_in_the_place_of_a_file_is_an_error_and_does_not_hang(tmp_path: Path, mode: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError):
        open_private(tmp_path / "pipe", mode)
    os.mkfifo(tmp_path / "measurements.jsonl")
    with pytest.raises(ThriftbitError, match="cannot be kept"):
        append_lines(b"{}\n", tmp_path / "measurements.jsonl", "measurements")
