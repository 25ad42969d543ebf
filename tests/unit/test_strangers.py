"""Words of commands that are printed to be pasted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from thriftbit.errors import ThriftbitError
from thriftbit.runtime.export import export
from thriftbit.sources.checkpoint import pickle_refused
from thriftbit.strangers import quoted

HOSTILE = [
    "a b",
    "$(touch pwn)",
    "`touch pwn`",
    "a;touch pwn",
    "a'b",
    'a"b',
    "-rf",
    "--help",
    "a\\b",
    "~",
    "*",
    "a&b",
    "#a",
]


@pytest.mark.skipif(os.name == "nt", reason="a shell of Unix")
@pytest.mark.parametrize("word", HOSTILE)
def test_a_shell_takes_it_as_one_word_and_runs_nothing(word: str, tmp_path: Path) -> None:
    code = "import sys; print(sys.argv[1:])"
    line = f"{quoted(sys.executable)} -c {quoted(code)} {quoted(word)}"
    result = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert result.stdout == f"{[f'./{word}' if word.startswith('-') else word]}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="a shell of Unix")
def test_the_way_out_of_a_pickle_runs_nothing_that_stands_in_a_name(tmp_path: Path) -> None:
    command = str(pickle_refused('a $(touch pwn)`touch pwn`";touch pwn;"', "a.bin")).splitlines()[1]
    assert command.startswith("python -c ")
    parsed = subprocess.run(
        command.replace("python -c", "printf %s", 1), shell=True, cwd=tmp_path, capture_output=True, text=True
    )
    assert "$(touch pwn)`touch pwn`" in parsed.stdout and list(tmp_path.iterdir()) == []


def test_what_export_prints_runs_nothing(tmp_path: Path, tiny_llama: Path) -> None:
    from thriftbit.quantization.plan import make_plan
    from thriftbit.quantization.quantize import quantize
    from thriftbit.sources.open_model import open_model

    model = open_model(tiny_llama)
    path = quantize(model, make_plan(model, "Q8_0"), tmp_path / "a $(touch pwn);b.gguf").path
    found = export(path, "llama.cpp", folder=tmp_path / "cache", dry_run=True)
    assert quoted("a $(touch pwn);b.gguf") in found.command
    found = export(path, "ollama", folder=tmp_path / "$(touch pwn)", dry_run=True)
    assert any(f"OLLAMA_MODELS={quoted(tmp_path / '$(touch pwn)')}" in note for note in found.notes)
    with pytest.raises(ThriftbitError, match=r"thriftbit quantize '.*\$\(touch pwn\)'"):
        (tmp_path / "$(touch pwn)").mkdir()
        export(tmp_path / "$(touch pwn)", "ollama")
