"""What a notebook shows of what public functions return: short, and as a table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import thriftbit
from unit.report.rows import example_rows


@pytest.fixture
def shown(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    monkeypatch.setenv("THRIFTBIT_CACHE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    model = thriftbit.open_model(tiny_llama)
    plan = thriftbit.make_plan(model, "Q4_K_M")
    thriftbit.quantize(model, plan, "tiny-Q4_K_M.gguf")
    findings = thriftbit.find(local=True)
    assert findings.local
    return [model, plan, thriftbit.fit(tiny_llama), findings, example_rows()[0], thriftbit.inspect("tiny-Q4_K_M.gguf")]


def test_everything_is_short_and_a_table(shown: list[object]) -> None:
    for each in shown:
        assert len(repr(each)) < 300 and repr(each).startswith(f"{type(each).__name__}(")
        html = each._repr_html_()  # type: ignore[attr-defined]
        assert "<table>" in html and len(html) < 8000


def test_names_of_strangers_are_text(shown: list[object]) -> None:
    model = shown[0]
    assert isinstance(model, thriftbit.Model)
    html = replace(model, source="<script>alert(1)</script>")._repr_html_()
    assert "<script" not in html and "&lt;script&gt;" in html


def test_what_else_is_returned_is_short(tiny_llama: Path) -> None:
    assert len(repr(thriftbit.profile_of(thriftbit.examine()))) < 300
