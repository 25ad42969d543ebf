"""The demo, which ships with its model, and the table of sizes in docs/results.md, which it wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from conftest import ROOT, RunThriftbit
from thriftbit.demo import LEVELS, PROMPTS, WRITER

MODEL_LIMIT_BYTES = 25_000_000


def test_the_model_in_the_box_is_small() -> None:
    folder = ROOT / "src" / "thriftbit" / "demo_model"
    assert sum(file.stat().st_size for file in folder.iterdir()) <= MODEL_LIMIT_BYTES


def test_demo_in_json_tells_every_level_and_what_was_written(run_thriftbit: RunThriftbit, tmp_path: Path) -> None:
    result = run_thriftbit("demo", "--quick", "--json", "--output", "kept")
    assert result.returncode == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    levels = document["levels"]
    assert [level["preset"] for level in levels] == list(LEVELS)
    for level in levels:
        assert (tmp_path / level["path"]).stat().st_size == level["size_bytes"]
    sizes = [level["size_bytes"] for level in levels]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes)
    assert document["writer"] == WRITER and document["prompt"] == PROMPTS[0]
    assert len(document["generation"]["text"].split()) > 20


def test_demo_for_people_keeps_nothing(run_thriftbit: RunThriftbit, tmp_path: Path) -> None:
    result = run_thriftbit("demo", "--quick", COLUMNS="80")
    assert result.returncode == 0, result.stderr
    for level in LEVELS:
        assert re.search(rf"^{level} +[\d.]+ MB +\d+% +[\d.]+ +[\d.]+ s *$", result.stdout, re.MULTILINE)
    assert PROMPTS[0] in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_demo_ends_with_a_report(run_thriftbit: RunThriftbit, tmp_path: Path) -> None:
    result = run_thriftbit("demo", "--output", "kept")
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "kept" / "report.html").read_text(encoding="utf-8")
    for level in LEVELS:
        assert level in page and re.search(rf"^{level} .* tokens/s", result.stdout, re.MULTILINE)
    assert "KL divergence" in result.stdout and all(prompt in page for prompt in PROMPTS)
    assert str(Path("kept") / "report.html") in result.stdout
    assert not (tmp_path / ".cache").exists()  # the demo's rows are nobody's measurements


def test_the_results_show_the_table_that_the_demo_writes(run_thriftbit: RunThriftbit) -> None:
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"<!-- demo: begin.*?-->\n(.*?)\n<!-- demo: end -->", results, re.DOTALL)
    assert table.strip() == run_thriftbit("demo", "--markdown").stdout.strip()
