"""Completion, as shells ask for it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import RunThriftbit


def completed(run_thriftbit: RunThriftbit, *words: str, **environment: str) -> list[str]:
    """Return what bash is offered for the last word."""
    asked = {"_THRIFTBIT_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(("thriftbit", *words))}
    done = run_thriftbit(**asked, COMP_CWORD=str(len(words)), **environment)
    assert done.returncode == 0 and done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_commands_and_options(run_thriftbit: RunThriftbit) -> None:
    assert completed(run_thriftbit, "qu") == ["quantize"]
    assert completed(run_thriftbit, "quantize", "--dry") == ["--dry-run"]


def test_presets_in_any_case(run_thriftbit: RunThriftbit) -> None:
    assert {"Q4_K_M", "Q4_K_S"} <= set(completed(run_thriftbit, "quantize", "x", "--to", "q4_k"))


def test_models_that_find_knows_and_files(run_thriftbit: RunThriftbit, tmp_path: Path, tiny_llama: Path) -> None:
    file = tmp_path / "models" / "tiny-Q8_0.gguf"
    file.parent.mkdir()
    assert run_thriftbit("quantize", tiny_llama, "--to", "Q8_0", "-o", file).returncode == 0
    home = {"HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub")}
    assert completed(run_thriftbit, "chat", "mod", **home) == ["models/tiny-Q8_0.gguf", "mod"]  # the last: files


def test_words_to_explain_and_settings(run_thriftbit: RunThriftbit) -> None:
    assert "Q4_K_M" in completed(run_thriftbit, "explain", "Q4_K")
    assert "chat.context" in completed(run_thriftbit, "config", "set", "chat.c")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_that_the_shell_understands(run_thriftbit: RunThriftbit, shell: str, tmp_path: Path) -> None:
    done = run_thriftbit("completion", shell)
    assert done.returncode == 0 and "_THRIFTBIT_COMPLETE" in done.stdout
    if shutil.which(shell):
        script = tmp_path / "script"
        script.write_text(done.stdout)
        subprocess.run([shell, "-n", script], check=True)


def test_a_pipe_gets_the_help_where_no_command_is_given(run_thriftbit: RunThriftbit) -> None:
    done = run_thriftbit()
    assert done.returncode == 2 and "Examples:" in done.stdout and done.stderr == ""
    assert "thriftbit fit" in done.stdout and "thriftbit serve" in done.stdout
