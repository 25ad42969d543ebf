"""`thriftbit fit` as users run it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import RunThriftbit

CONFIGURATIONS = Path(__file__).parents[1] / "unit" / "advice" / "configurations"


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_table_fits_the_terminal(run_thriftbit: RunThriftbit, tmp_path: Path, columns: int) -> None:
    environment = {"COLUMNS": str(columns), "THRIFTBIT_CACHE": str(tmp_path)}
    result = run_thriftbit("fit", CONFIGURATIONS / "mistral-7b", "--offline", **environment)
    assert result.returncode in (0, 3), result.stderr
    assert all(len(line) <= columns for line in result.stdout.splitlines() if "/" not in line)
    rows = [line for line in result.stdout.splitlines() if " GB " in line]
    rows = [row for row in rows if row.lstrip(" →").startswith(("F32", "Q", "BF16", "IQ", "F16"))]
    assert 5 <= len(rows) <= 8 and sum(row.startswith("→") for row in rows) == 1
    assert "more with --all" in result.stdout and all("%" in row or "none" in row for row in rows)
    assert "thriftbit doctor --measure" in " ".join(result.stdout.split())


def test_json_has_every_number_with_its_reason(run_thriftbit: RunThriftbit, tmp_path: Path, tiny_llama: Path) -> None:
    result = run_thriftbit("fit", tiny_llama, "--json", THRIFTBIT_CACHE=str(tmp_path))
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["recommended"] in {option["precision"] for option in document["options"]}
    assert document["next"] == f"thriftbit quantize {tiny_llama} --to {document['recommended']}"
    for option in document["options"]:
        for what in ("size_bytes", "tokens_per_second", "loss"):
            assert option[what]["reason"], (option["precision"], what)


def test_nothing_fits_is_exit_code_3(run_thriftbit: RunThriftbit, tmp_path: Path) -> None:
    result = run_thriftbit(
        "fit", CONFIGURATIONS / "llama-3-70b", "--leave-free", "100TB", THRIFTBIT_CACHE=str(tmp_path)
    )
    assert result.returncode == 3
    assert "No precision fits" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("fit", "x", "--task", "poetry"),
        ("fit", "x", "--context", "many"),
        ("fit", "x", "--context", "0"),
        ("fit", "x", "--max-loss", "a little"),
    ],
)
def test_requests_that_make_no_sense(run_thriftbit: RunThriftbit, arguments: tuple[str, ...]) -> None:
    assert run_thriftbit(*arguments).returncode == 2


def test_what_cannot_be_described_is_one_sentence(run_thriftbit: RunThriftbit, tmp_path: Path) -> None:
    result = run_thriftbit("fit", tmp_path / "absent")
    assert result.returncode == 1
    assert result.stderr.startswith("error:") and "Traceback" not in result.stderr
