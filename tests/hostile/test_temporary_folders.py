"""Runs that are stopped or killed at any moment: nothing large stays, and nobody's folder is taken for abandoned."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from thriftbit.containers.temporary_folder import clear_abandoned, temporary_folder

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

# Stopped by Python itself after so many lines of the code that makes and removes the folder.
STOP_AT_LINE = """
import os, signal, sys
from pathlib import Path
from thriftbit.containers import stopping, temporary_folder
place, number, left = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
signal.signal(signal.SIGINT, signal.default_int_handler)
for each in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(each, signal.SIG_DFL)
ours = {temporary_folder.__file__, stopping.__file__, __import__("shutil").__file__, __import__("contextlib").__file__}
def trace(frame, event, argument):
    global left
    if frame.f_code.co_filename not in ours:
        return None
    if event == "line":
        left -= 1
        if left == 0:
            os.kill(os.getpid(), number)
    return trace
sys.settrace(trace)
try:
    with temporary_folder.temporary_folder("test", place) as folder:
        (folder / "large").write_bytes(bytes(1000))
finally:
    sys.settrace(None)
print("reached the end", flush=True)
"""

HOLD = """
import signal, sys, time
from pathlib import Path
from thriftbit.containers.temporary_folder import temporary_folder
signal.signal(signal.SIGINT, signal.default_int_handler)
for each in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(each, signal.SIG_DFL)
with temporary_folder("test", Path(sys.argv[1])) as folder:
    (folder / "below").mkdir()
    (folder / "below" / "large").write_bytes(bytes(1000))
    print(folder, flush=True)
    time.sleep(60)
"""


def hold(place: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(place)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_the_folder_is_the_owners_alone_and_goes(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with temporary_folder("test", tmp_path) as folder:
            assert folder.stat().st_mode & 0o777 == 0o700
            assert all(not path.stat().st_mode & 0o077 for path in tmp_path.iterdir())
    finally:
        os.umask(before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stopped_run_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    process, folder = hold(tmp_path)
    with process:
        assert (folder / "below" / "large").exists()
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGINT else 128 + number)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_stopped_between_any_two_lines_leaves_nothing(tmp_path: Path) -> None:
    chance = random.Random(17)
    ended = 0
    for _ in range(12):
        number, line = chance.choice(SIGNALS), chance.randrange(1, 220)
        command = [sys.executable, "-c", STOP_AT_LINE, str(tmp_path), str(int(number)), str(line)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
        ended += "reached the end" in result.stdout
        assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == [], (number, line, result)
    assert ended < 12
    clear_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_next_run_removes_what_a_kill_left(tmp_path: Path) -> None:
    process, folder = hold(tmp_path)
    with process:
        process.kill()
    assert (folder / "below" / "large").exists()
    with temporary_folder("other", tmp_path) as other:
        assert not folder.exists()
        assert {path.name.removesuffix(".lock") for path in tmp_path.iterdir()} == {other.name}
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_never_remove_each_others(tmp_path: Path) -> None:
    process, folder = hold(tmp_path)
    with process:
        for _ in range(3):
            with temporary_folder("other", tmp_path), temporary_folder("another", tmp_path):
                assert (folder / "below" / "large").exists()
        process.terminate()
    assert list(tmp_path.iterdir()) == []


def test_many_that_begin_at_once_all_keep_their_folders(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from thriftbit.containers.temporary_folder import temporary_folder
for _ in range(60):
    with temporary_folder("test", Path(sys.argv[1])) as folder:
        (folder / "a").write_bytes(b"a")
        assert (folder / "a").read_bytes() == b"a"
"""
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert list(tmp_path.iterdir()) == []


def test_a_forked_child_leaves_the_folder_to_its_parent(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from thriftbit.containers.temporary_folder import temporary_folder
with temporary_folder("test", Path(sys.argv[1])) as folder:
    if os.fork() == 0:
        sys.exit(0)
    os.wait()
    assert folder.is_dir()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(tmp_path)], check=True)
    assert list(tmp_path.iterdir()) == []


def test_without_locks_the_owners_process_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from thriftbit.containers import temporary_folder as module

    monkeypatch.setattr(module, "lock", lambda file: False)
    process, folder = hold(tmp_path)
    with process:
        clear_abandoned(tmp_path)
        assert folder.exists()
        process.kill()
        process.wait()
        clear_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_others_put_there_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_bytes(b"mine")
    (tmp_path / "thriftbit-trap").symlink_to(precious)
    (tmp_path / "thriftbit-trap.lock").write_bytes(b"")
    os.mkfifo(tmp_path / "thriftbit-pipe.lock")
    (tmp_path / "thriftbit-link.lock").symlink_to(precious / "file")
    (tmp_path / "thriftbit-folder.lock").mkdir()
    (tmp_path / "thriftbit-no-lock").mkdir()
    started = time.monotonic()
    clear_abandoned(tmp_path)
    assert time.monotonic() - started < 30  # the pipe does not block
    assert (precious / "file").read_bytes() == b"mine"
    assert (tmp_path / "thriftbit-no-lock").is_dir()
