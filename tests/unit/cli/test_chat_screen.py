"""What a model writes never drives a terminal, and Markdown is finished where nothing can change it any more."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from thriftbit.cli.chat_screen import Screen, finished_length, markdown, written
from thriftbit.strangers import harmless_json

HOSTILE = {
    "escape": "\x1b",
    "colour": "\x1b[31m",
    "title": "\x1b]0;gone\x07",
    "link": "\x1b]8;;http://evil.example\x1b\\bank\x1b]8;;\x1b\\",
    "clipboard": "\x1b]52;c;aGk=\x07",
    "one-byte CSI": "\x9b31m",
    "one-byte OSC": "\x9d0;gone\x9c",
    "bell": "\x07",
    "backspace": "safe\b\b\b\bevil",
    "return": "over\rwritten",
    "delete": "\x7f",
    "bidi override": "\u202eevil\u202c",
    "bidi isolate": "\u2066evil\u2069",
    "direction mark": "\u200f",
    "line separator": "\u2028",
    "tag": "\U000e0041",
    "surrogate": "\ud800",
}


def is_harmless(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_nothing_that_drives_a_terminal_is_left(text: str) -> None:
    assert is_harmless(written(text))
    document = harmless_json({"answer": text})
    assert is_harmless(document) and json.loads(document) == {"answer": text}


@pytest.mark.parametrize("text", ["naïve — 日本語", "می\u200cخواهم", "👩\u200d🚀", "1\u00a0000", "a\nb"])
def test_what_people_write_stays(text: str) -> None:
    assert written(text) == text


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_screen_sends_nothing_of_it(text: str, colour: bool) -> None:
    def sent(answer: str) -> str:
        file = io.StringIO()
        terminal = {"TERM": "xterm-256color"} | ({} if colour else {"NO_COLOR": "1"})
        console = Console(file=file, force_terminal=True, width=40, height=10, legacy_windows=False, _environ=terminal)
        with Screen(console) as screen:
            for character in answer:  # no sequence hides between two pieces
                screen.write(character, False)
        return file.getvalue()

    # what rich itself sends moves the cursor up over what it drew, erases that, and sets colours: nothing else
    written = sent(f"before `code` {text} after\n\n```html\n{text}\n```\n")
    for known in ("\x1b[2K", "\x1b[1A", "\x1b[?25l", "\x1b[?25h", "\r"):
        written = written.replace(known, "")
    for part in written.split("\x1b[")[1:]:
        parameters, mark, _ = part.partition("m")
        assert mark and set(parameters) <= set("0123456789;"), part
    assert "\x1b]" not in written and not set(written) & set("\x07\x08\x7f\x9b\x9d\u202e\u2066\u2028\ud800")


def test_links_show_where_they_lead_and_html_is_shown() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100)
    console.print(markdown("[your bank](http://evil.example) and <script>alert(1)</script>\n\n<div>block</div>\n"))
    assert "evil.example" in file.getvalue() and "\x1b]8" not in file.getvalue()
    assert "<script>alert(1)</script>" in file.getvalue() and "<div>block</div>" in file.getvalue()


@pytest.mark.parametrize(
    ("text", "finished"),
    [
        ("one", ""),
        ("one\n\n", ""),
        ("one\n\ntwo", ""),
        ("one\n\ntwo\n", "one\n\n"),
        ("- a\n\n- b\n", ""),
        ("- a\n\n  more of a\n", ""),
        ("1. a\n\n2. b\n\nend\n", "1. a\n\n2. b\n\n"),
        ("```\na\n\nb\n", ""),
        ("```\na\n\nb\n```\n\nend\n", "```\na\n\nb\n```\n\n"),
        ("````\n```\n\nx\n", ""),
    ],
)
def test_a_block_is_finished_when_nothing_can_change_it(text: str, finished: str) -> None:
    assert text[: finished_length(text)] == finished


def test_an_answer_longer_than_the_terminal_arrives_whole_and_once() -> None:
    file = io.StringIO()
    lines = [f"line {number}" for number in range(60)]
    with Screen(Console(file=file, force_terminal=False, width=40)) as screen:
        for line in lines:
            screen.write(f"{line}\n", False)
    assert file.getvalue().split("\n")[:60] == lines
