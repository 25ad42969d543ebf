"""`thriftbit report`, and the file it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import thriftbit
from thriftbit.cli import commands
from thriftbit.errors import ThriftbitError
from thriftbit.measurement.store import append, store_path
from thriftbit.measurement.subject import describe_subject
from thriftbit.report import render_page, write_report
from unit.report.rows import LEVELS, ORIGINAL, example_rows

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs `thriftbit report ARGUMENTS` in an empty folder with an
    empty store; errors of the user are raised."""
    monkeypatch.setenv("THRIFTBIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str) -> Result:
        result = CliRunner().invoke(commands, ["report", *arguments])
        if isinstance(result.exception, ThriftbitError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result

    return invoke


def test_rows_in_a_file_become_a_table_and_a_page(run: Run) -> None:
    append(example_rows(), Path("rows.jsonl"))
    result = run("rows.jsonl")
    assert result.stdout.startswith("Q4_K_M is 68% smaller")
    assert "The page is report.html" in result.stdout
    page = Path("report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "Q4_K_M is 68% smaller" in page


def test_a_page_is_replaced_only_if_that_is_asked_for(run: Run) -> None:
    append(example_rows(), Path("rows.jsonl"))
    Path("report.html").write_text("precious")
    with pytest.raises(ThriftbitError, match=r"report.html: exists already; use --force"):
        run("rows.jsonl")
    assert Path("report.html").read_text() == "precious"
    run("rows.jsonl", "--force")
    run("rows.jsonl", "-o", "other.html")
    assert Path("report.html").read_text() == Path("other.html").read_text() != "precious"


def test_json_is_one_document_of_everything(run: Run) -> None:
    append(example_rows(), Path("rows.jsonl"))
    document = json.loads(run("rows.jsonl", "--json").stdout)
    assert document["page"] == "report.html" and document["recommended"] == "Q4_K_M"
    assert [file["label"] for file in document["files"]] == [level for level, *_ in LEVELS]
    best = document["files"][0]
    assert best["loss"] == "almost identical" and best["accuracy"]["code"]["same_top_token"]["unit"] == "share"
    assert document["original"]["costs"]["energy_per_token"]["value"] is None


def test_nothing_given_means_the_store(run: Run) -> None:
    with pytest.raises(ThriftbitError, match="nothing was measured yet; try: thriftbit measure"):
        run()
    append(example_rows())
    assert run().stdout.startswith("Q4_K_M is 68% smaller")


def test_a_gguf_means_what_the_store_has_about_it(run: Run, tiny_llama: Path) -> None:
    model = thriftbit.open_model(tiny_llama)
    file = thriftbit.quantize(model, thriftbit.make_plan(model, "Q8_0"), "tiny-Q8_0.gguf").path
    subject = describe_subject(thriftbit.open_model(file, allow_requantize=True))
    append(example_rows())
    with pytest.raises(ThriftbitError, match=r"tiny-Q8_0.gguf: was not measured yet; try: thriftbit measure"):
        run(str(file))
    original = replace(ORIGINAL, fingerprint="of the tiny model", name="tiny", size_bytes=9_000_000)
    append(
        replace(row, subject=subject if row.against else original, against=row.against and original)
        for row in example_rows()
        if row.subject.level in ("Q8_0", ORIGINAL.level)
    )
    document = json.loads(run(str(file), "--json").stdout)
    assert [found["name"] for found in document["files"]] == ["tiny-Q8_0.gguf"]
    assert document["original"]["name"] == "tiny"


def test_lines_that_are_no_rows_are_told_and_passed_over(run: Run) -> None:
    append(example_rows(), Path("rows.jsonl"))
    with Path("rows.jsonl").open("ab") as file:
        file.write(b"{}\nnonsense\n\xff\n[]\n1\n")
    result = run("rows.jsonl")
    assert result.stdout.startswith("Q4_K_M is 68% smaller")
    assert result.stderr.count("Passed over: ") == 4 and "2 more lines" in result.stderr


def test_files_without_rows_are_refused(run: Run) -> None:
    with pytest.raises(ThriftbitError, match=r"missing.jsonl does not exist"):
        run("missing.jsonl")
    Path("empty.jsonl").touch()
    with pytest.raises(ThriftbitError, match=r"empty.jsonl: there are no measurements in it$"):
        run("empty.jsonl")
    Path("text.jsonl").write_text("hello\n")
    with pytest.raises(ThriftbitError, match=r"text.jsonl: there are no measurements in it: line 1: is not JSON"):
        run("text.jsonl")
    assert not Path("report.html").exists() and not store_path().exists()


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ThriftbitError, match="no measurements to report"):
        write_report([], tmp_path / "report.html")
    with pytest.raises(ThriftbitError, match="there is no folder"):
        write_report(example_rows(), tmp_path / "missing" / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_the_same_rows_make_the_same_page() -> None:
    assert render_page(example_rows()) == render_page(example_rows())


def test_a_second_report_replaces_the_first_and_nothing_else(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    append(example_rows(), Path("rows.jsonl"))
    first, second = run("rows.jsonl"), run("rows.jsonl")
    assert first.stdout == second.stdout and "Q4_K_M" in second.stdout
    Path("report.html").write_text("<html>mine</html>")
    with pytest.raises(ThriftbitError, match="exists already"):
        run("rows.jsonl")
    assert Path("report.html").read_text() == "<html>mine</html>"


def test_the_page_can_be_opened(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    append(example_rows(), Path("rows.jsonl"))
    run("rows.jsonl", "--open")
    assert opened == [Path("report.html").absolute().as_uri()]
