"""Disks that fill up, folders that cannot be written, runs that are stopped or killed: nothing half-written is left."""

import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from thriftbit.containers.atomic_file import PARTIAL_SUFFIX, AtomicFile
from thriftbit.errors import ThriftbitError

WRITE_SLOWLY = """
import signal, sys, time
from thriftbit.containers.atomic_file import AtomicFile
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal, even if the tests run under nohup
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
with AtomicFile(sys.argv[1], 1 << 20, force=True) as file:
    for i in range(1 << 10):
        file.write(bytes(1 << 10))
        if i == 1:
            print("writing", flush=True)
        time.sleep(0.03)
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 1 MiB; where none may be mounted, one where no file may exceed 256 KiB"""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path], capture_output=True)
    if mounted.returncode == 0:
        yield tmp_path
        subprocess.run(["umount", tmp_path], check=True)
    else:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (256 << 10, hard))
        yield tmp_path
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_disk_that_fills_up_in_the_middle(small_disk: Path) -> None:
    path = small_disk / "a.gguf"
    with (
        pytest.raises(ThriftbitError, match=r"a\.gguf: the disk is full after .* of 1\.02 MB; nothing was kept"),
        AtomicFile(path, 1000 << 10) as file,  # it would fit if nobody else wrote
    ):
        (small_disk / "another").write_bytes(bytes(200 << 10))
        for _ in range(1000):
            file.write(bytes(1 << 10))
    assert [entry.name for entry in small_disk.iterdir()] == ["another"]


def test_disk_that_is_too_small_from_the_start(small_disk: Path) -> None:
    free_bytes = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    with (
        pytest.raises(ThriftbitError, match=r"its disk has .* free; 2\.10 MB are missing"),
        AtomicFile(small_disk / "a.gguf", free_bytes + 2_100_000),
    ):
        pass
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_run_leaves_the_folder_as_it_was(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"the one from before")
    command = [sys.executable, "-c", WRITE_SLOWLY, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        assert (tmp_path / ("a.gguf" + PARTIAL_SUFFIX)).exists()
        process.send_signal(number)
        process.communicate(timeout=20)
    assert process.returncode == (-number if number == signal.SIGINT else 128 + number)
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"a.gguf": b"the one from before"}


def test_what_a_killed_run_left_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    with subprocess.Popen([sys.executable, "-c", WRITE_SLOWLY, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(ThriftbitError, match="another run is writing"), AtomicFile(path, 4):
            pass
        process.kill()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.gguf" + PARTIAL_SUFFIX]
    with AtomicFile(path, 4) as file:
        file.write(b"GGUF")
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"a.gguf": b"GGUF"}


@pytest.fixture
def forbidden_folder() -> Iterator[Path]:
    """A folder that may be looked into, not written; root, who may write everywhere, becomes nobody meanwhile"""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        if user == 0:
            os.seteuid(65534)
        yield Path(folder)
        os.seteuid(user)
        Path(folder).chmod(0o755)


def test_folder_that_cannot_be_written(forbidden_folder: Path) -> None:
    with (
        pytest.raises(ThriftbitError, match=r"a\.gguf: cannot be written: Permission denied"),
        AtomicFile(forbidden_folder / "a.gguf", 4),
    ):
        pass
    assert list(forbidden_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder", "is a folder; name a file"),
        (".", "is a folder; name a file"),
        ("/", "is a folder; name a file"),
        ("pipe", "not a regular file"),
        ("nowhere/a.gguf", "there is no folder .*nowhere; create it"),
        ("loop", "cannot be written|there is no folder"),
        ("x" * 250, "cannot be written: File name too long"),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_names_that_cannot_be_written(tmp_path: Path, name: str, message: str, force: bool) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ThriftbitError, match=message), AtomicFile(tmp_path / name, 4, force=force):
        pass
    assert sorted(tmp_path.iterdir()) == before


def test_link_planted_at_the_temporary_name_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / ("a.gguf" + PARTIAL_SUFFIX)).symlink_to(victim)
    with pytest.raises(ThriftbitError, match="cannot be written"), AtomicFile(tmp_path / "a.gguf", 4):
        pass
    assert victim.read_bytes() == b"precious"
