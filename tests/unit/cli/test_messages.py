"""What the library logs, as the command line shows it."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import RunThriftbit
from thriftbit.cli import commands
from thriftbit.cli.messages import announce, show_messages, shown_by

library = logging.getLogger("thriftbit.sources.hub")


def test_what_is_logged_goes_to_the_error_output(capsys: pytest.CaptureFixture[str]) -> None:
    show_messages()
    library.info("owner/name: downloading 4 GB")
    library.warning("the card cannot be read")
    library.debug("details")
    announce("measuring")
    told = ["owner/name: downloading 4 GB", "Warning: the card cannot be read", "measuring"]
    assert capsys.readouterr() == ("", "\n".join(told) + "\n")


def test_a_note_is_shown_once_and_control_characters_as_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    show_messages()
    for _ in range(2):
        library.info("Note: this is so \x1b[2J")
        library.info("Loaded again.")
    told = ["Note: this is so \\x1b[2J", "Loaded again.", "Loaded again."]
    assert capsys.readouterr().err.splitlines() == told


def test_messages_can_go_elsewhere_for_a_while(capsys: pytest.CaptureFixture[str]) -> None:
    show_messages()
    inside: list[str] = []
    with shown_by(inside.append):
        library.info("inside")
    library.info("after")
    assert inside == ["inside"] and capsys.readouterr().err == "after\n"


@pytest.mark.parametrize("name", sorted(commands.commands))
def test_every_command_can_be_quiet_or_verbose(name: str) -> None:
    options = {option for parameter in commands.commands[name].params for option in parameter.opts}
    assert {"--quiet", "-q", "--verbose", "-v"} <= options


def test_quiet_leaves_the_result_and_warnings(run_thriftbit: RunThriftbit, tiny_llama: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.gguf"
    first = run_thriftbit("quantize", tiny_llama, "--to", "Q8_0", "-o", small, "--quiet")
    assert first.returncode == 0 and first.stderr == "" and "Wrote" in first.stdout
    again = ("quantize", small, "--to", "Q4_0", "-o", tmp_path / "smaller.gguf", "--allow-requantize")
    warned = run_thriftbit(*again, "--quiet")
    assert warned.returncode == 0 and warned.stderr.startswith("Warning: ") and "quantized already" in warned.stderr
    wrong = run_thriftbit("quantize", tmp_path / "absent", "--to", "Q4_0", "--quiet")
    assert wrong.returncode == 1 and wrong.stderr.startswith("error: ")


def test_python_gets_ordinary_records(tiny_llama: Path, tmp_path: Path, thriftbit_environment: dict[str, str]) -> None:
    program = f"""
import logging, thriftbit
logging.basicConfig(level=logging.INFO, format="%(name)s %(levelname)s %(message)s")
model = thriftbit.open_model({str(tiny_llama)!r})
thriftbit.quantize(model, thriftbit.make_plan(model, "Q8_0"), {str(tmp_path / "a.gguf")!r})
thriftbit.open_model({str(tmp_path / "a.gguf")!r}, allow_requantize=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=thriftbit_environment, capture_output=True, text=True, check=True
    )
    assert done.stderr.startswith("thriftbit.sources.gguf_source WARNING ") and done.stdout == ""
