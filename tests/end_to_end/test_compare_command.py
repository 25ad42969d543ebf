"""`thriftbit compare` as a command: what it says, what it refuses before anything is loaded, how it ends."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

import thriftbit
from conftest import RunThriftbit
from end_to_end.test_compare import files, votes_folder
from thriftbit.advice import ready
from thriftbit.errors import ThriftbitError
from thriftbit.machine.room import Room
from thriftbit.machine.running_plan import NO_WISHES, RunningPlan
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.quantize import quantize
from thriftbit.side_by_side.lineup import lineup

__all__ = ["files", "votes_folder"]  # fixtures


def test_the_command_says_where_and_ends_with_the_result(
    files: list[Path], thriftbit_environment: dict[str, str]
) -> None:
    command = [sys.executable, "-P", "-m", "thriftbit", "compare", *map(str, files), "--threads", "1", "--json"]
    with subprocess.Popen(
        command, env=thriftbit_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        said = ""
        while not said.endswith("}\n"):
            line = run.stdout.readline()
            assert line, run.communicate()
            said += line
        document = json.loads(said)
        port = urlsplit(document["address"]).port
        taken = subprocess.run(
            [*command, "--port", str(port)], env=thriftbit_environment, capture_output=True, text=True
        )
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=30)
    assert document["original"] == files[1].name and document["others"] == [files[0].name]
    assert run.returncode == 0 and "Traceback" not in errors
    assert taken.returncode == 1 and f"port {port} of 127.0.0.1 cannot be used" in taken.stderr


def test_what_cannot_be_compared_is_told_before_anything_is_loaded(
    files: list[Path], tmp_path: Path, run_thriftbit: RunThriftbit
) -> None:
    damaged, twin = tmp_path / "damaged.gguf", tmp_path / "twin.gguf"
    damaged.write_bytes(files[0].read_bytes()[:-100_000])
    shutil.copy(files[0], twin)
    for other, more, message in (
        (damaged, {}, "damaged.gguf"),
        (twin, {}, "hold the same weights"),
        (files[1], {"port": 70_000}, "ports go from"),
    ):
        with pytest.raises(ThriftbitError, match=message), thriftbit.compare([files[0], other], **more):
            raise AssertionError("it began")
    alone = run_thriftbit("compare", files[0])
    assert alone.returncode == 2 and "two files or more" in alone.stderr and "Traceback" not in alone.stderr
    missing = run_thriftbit("compare", files[0], "none.gguf")
    assert missing.returncode == 1 and "none.gguf: no such file" in missing.stderr


def refused_file(original: Path, folder: Path) -> Path:
    """Return a copy that is read here and that llama.cpp refuses: its first layer lacks a norm."""
    path = folder / "refused.gguf"
    path.write_bytes(original.read_bytes().replace(b"blk.0.attn_norm.weight", b"blk.0.attn_nori.weight"))
    return path


def test_a_file_that_does_not_load_is_told_in_a_line(
    files: list[Path], tmp_path: Path, run_thriftbit: RunThriftbit
) -> None:
    result = run_thriftbit("compare", files[1], refused_file(files[0], tmp_path), "--threads", "1", "--no-browser")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert re.search(r"error: .*refused\.gguf: llama\.cpp could not run it: .*attn_norm", result.stderr)


def test_one_that_does_not_load_fails_alone_where_each_is_loaded_in_turn(
    files: list[Path], tmp_path: Path, votes_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thriftbit.side_by_side.comparing.fit_together", lambda paths, plans: False)
    with thriftbit.compare([files[1], refused_file(files[0], tmp_path)], context_tokens=256, threads=1) as compared:
        pass  # nobody asked anything
    with thriftbit.compare([files[1], refused_file(files[0], tmp_path)], context_tokens=256, threads=1) as compared:
        asked = compared.session.ask("Where?", longest=100)
        assert compared.session._worker is not None
        compared.session._worker.join(60)
        assert sorted(answer.ended == "failed" for answer in asked.answers) == [False, True]
        assert "attn_norm" in next(answer.error for answer in asked.answers if answer.error)


def test_ctrl_c_while_it_loads_leaves_nothing(files: list[Path], thriftbit_environment: dict[str, str]) -> None:
    command = [sys.executable, "-P", "-m", "thriftbit", "compare", *map(str, files), "--threads", "1", "--no-browser"]
    with subprocess.Popen(
        command, env=thriftbit_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        while not (engines := psutil.Process(run.pid).children()):
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=60)
    assert "Traceback" not in errors and run.returncode in (0, 130)
    assert not [engine for engine in engines if engine.is_running() and engine.status() != psutil.STATUS_ZOMBIE]


def test_another_model_is_told_to_be_one(
    files: list[Path], tiny_llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "thriftbit")
    model = thriftbit.open_model(tiny_llama)
    another = quantize(model, make_plan(model, "Q4_K_M"), tmp_path / "another.gguf").path
    caplog.clear()
    assert [file.path for file in lineup([another, files[1]])] == [files[1], another]
    assert caplog.messages == ["Note: another.gguf is another model than demo-Q8_0.gguf, not another precision of it."]


def test_whether_they_fit_together_is_counted(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    real = ready.computer_for
    here = ready.computer_profile(None)
    options = [ready._option(ready.open_outline(file), here, 256, NO_WISHES) for file in files]
    needed = sum(option.place.main_bytes for option in options)
    for room, fits in ((needed, True), (needed - 1, False), (None, True)):
        found = Room(room, 0, "", False, "free now")
        monkeypatch.setattr(ready, "computer_for", lambda *given, found=found: replace(real(*given), room=found))
        assert ready.fit_together(files, [RunningPlan(256)] * len(files)) is fits
