"""`thriftbit map`, and budgets of `thriftbit quantize`, as users run them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import RunThriftbit
from thriftbit import inspect


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("What is said here is said by nobody else, and it goes on for a page or two. " * 60)
    return path


def test_a_map_and_files_from_it(run_thriftbit: RunThriftbit, tiny_llama: Path, tmp_path: Path, text: Path) -> None:
    cache = {"THRIFTBIT_CACHE": str(tmp_path / "cache")}
    made = run_thriftbit(
        *("map", tiny_llama, "--effort", "plain", "--calibrate-on", text, "--html", "map.html"), **cache, COLUMNS="80"
    )
    assert made.returncode == 0, made.stderr
    assert "○" in made.stdout and "●" in made.stdout and "\nQ4_K_M " in made.stdout
    assert "--max-loss 1%" in made.stdout and "19 times in 20" in made.stdout
    assert (tmp_path / "map.html").read_text().startswith("<!doctype html>")
    assert max(map(len, made.stdout.splitlines())) <= 100

    document = json.loads(
        run_thriftbit("map", tiny_llama, "--effort", "plain", "--calibrate-on", text, "--json", **cache).stdout
    )
    sizes = [plan["size_bytes"] for plan in document["plans"]]
    assert sizes == sorted(sizes) and document["provenance"] == "predicted"

    common = ("quantize", tiny_llama, "--effort", "plain", "--bpw", "4.5", "--json")
    dry = json.loads(run_thriftbit(*common, "--calibrate-on", text, "--dry-run", **cache).stdout)
    assert dry["output"] == "tiny-llama-4.50bpw.gguf" or dry["output"].startswith("tiny-llama-4.4")
    assert dry["bits_per_weight"] <= 4.5 and dry["predicted"]["kl_divergence"] > 0
    assert {*dry["plan"]["tensors"].values()} > {"F32"}

    middle = sizes[len(sizes) // 2]
    result = run_thriftbit(
        *("quantize", tiny_llama, "--size", f"{middle}", "--calibrate-on", text, "-o", "out.gguf"), **cache
    )
    assert result.returncode == 0, result.stderr
    assert "predicted to lose" in result.stdout
    assert (tmp_path / "out.gguf").stat().st_size <= middle
    assert inspect(tmp_path / "out.gguf").metadata["thriftbit.effort"] == "calibrated"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--size", "4XB"), 2, "is not a size"),
        (("--bpw", "many"), 2, "not a number above 0"),
        (("--size", "4GB", "--bpw", "4"), 2, "the same budget"),
        (("--size", "4GB", "--to", "Q4_K_M"), 2, "--to and a budget"),
        (("--context", "100"), 2, "--fits"),
    ],
)
def test_what_makes_no_sense_is_said_at_once(
    run_thriftbit: RunThriftbit, tiny_llama: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    result = run_thriftbit("quantize", tiny_llama, *arguments)
    assert result.returncode == code and words in result.stderr
