from __future__ import annotations

import json

import pytest

from thriftbit.cli import printing
from thriftbit.strangers import harmless


def test_control_characters_are_shown_as_escapes() -> None:
    assert harmless("a\x1b[31m\rb\x00\u202ec\nd é €") == "a\\x1b[31m\\rb\\x00\\u202ec\nd é €"


def test_json_drives_no_terminal_either_in_keys_or_values(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"a\x9b31m": ["\u202egfug\u2028\u2029", {"\x1b]0;t\x07": "\ud800é"}]}
    printing.print_json(document)
    shown = capsys.readouterr().out
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert json.loads(shown) == document


def test_cells_are_not_markup_and_stay_in_their_row(capsys: pytest.CaptureFixture[str]) -> None:
    printing.show(printing.table(("name", ">size"), [("[red]x[/red] :smile:", "1"), ("two\nlines", "20")]))
    assert capsys.readouterr().out.splitlines() == [
        "name                   size",
        "[red]x[/red] :smile:      1",
        "two\\nlines               20",
    ]


def test_results_and_notes_go_to_different_outputs(capsys: pytest.CaptureFixture[str]) -> None:
    printing.say("result")
    printing.print_error("mistake")
    assert capsys.readouterr() == ("result\n", "error: mistake\n")


def test_a_line_to_be_copied_is_never_broken(capsys: pytest.CaptureFixture[str]) -> None:
    command = "llama-cli -m " + "x" * 500
    printing.say(command)
    assert capsys.readouterr().out == command + "\n"


def test_a_cropped_line_ends_where_the_terminal_does(capsys: pytest.CaptureFixture[str]) -> None:
    printing.say_cropped("x" * 500)
    line = capsys.readouterr().out.rstrip("\n")
    assert line == "x" * (printing.output.width - 1) + "…"


def test_json_has_no_numbers_that_json_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    printing.print_json({"a": "é", "b": [1, None]})
    assert json.loads(capsys.readouterr().out) == {"a": "é", "b": [1, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        printing.print_json(float("nan"))


COLUMNS = ("model", ">parameters", ">size", ">memory", "fits", ">tokens/s")
ROWS = [("Llama-3.1-8B-Instruct-Q4_K_M.gguf", "8.03 B", "4.92 GB", "6.02 GB", "yes", "~0.3 (0.2–0.5)")]


@pytest.mark.parametrize("width", range(24, 140, 4))
def test_a_narrow_terminal_cuts_no_number_and_pads_no_line(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(printing, "output", printing.ColorConsole(width=width))
    printing.show(printing.table(COLUMNS, ROWS))
    shown = capsys.readouterr().out
    assert all(len(line) <= width and line == line.rstrip() for line in shown.splitlines())
    joined = " ".join(shown.split())
    for cell in ROWS[0][1:]:
        assert cell in joined, shown
