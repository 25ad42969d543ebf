from __future__ import annotations

from pathlib import Path

import pytest

from thriftbit.quantization.journal import Journal


def test_what_was_found_is_not_computed_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "journal.jsonl"
    assert Journal(path).once("matrix a", lambda: {"Q4_0": 0.25}) == {"Q4_0": 0.25}

    def fails() -> None:
        raise AssertionError("it is known")

    again = Journal(path)
    assert again.once("matrix a", fails) == {"Q4_0": 0.25}
    assert "matrix a" in again and "matrix b" not in again
    again.once("matrix b", lambda: 2.0)
    assert Journal(path).under("matrix ") == {"a": {"Q4_0": 0.25}, "b": 2.0}


def test_a_line_that_was_cut_off_is_computed_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.once("first", lambda: 1)
    journal.once("second", lambda: 2)
    path.write_bytes(path.read_bytes()[:-4])
    torn = Journal(path)
    assert "first" in torn and "second" not in torn
    torn.once("second", lambda: 3)
    assert Journal(path).under("") == {"first": 1, "second": 3}


def test_what_failed_is_not_kept(tmp_path: Path) -> None:
    def fails() -> None:
        raise KeyboardInterrupt

    journal = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(KeyboardInterrupt):
        journal.once("key", fails)
    with pytest.raises(ValueError):
        journal.once("key", lambda: float("nan"))
    assert "key" not in Journal(tmp_path / "journal.jsonl")
