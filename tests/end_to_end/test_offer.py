"""The offer to measure this computer, as a person at a terminal meets it and as a script does not."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import RunThriftbit
from thriftbit.machine.asking import Standing, remember_no, standing
from thriftbit.machine.detect import detect
from thriftbit.machine.facts import known
from thriftbit.machine.profile import Profile, store_profile

pexpect = pytest.importorskip("pexpect")

QUESTION = "Measure now?"
CONFIGURATION = Path(__file__).parents[1] / "unit" / "advice" / "configurations" / "mistral-7b"


def at_a_terminal(environment: Mapping[str, str], *arguments: str) -> Any:
    return pexpect.spawn(
        sys.executable, ["-P", "-m", "thriftbit", *arguments], env=dict(environment), timeout=60, encoding="utf-8"
    )


@pytest.mark.parametrize("arguments", [("doctor",), ("fit", str(CONFIGURATION), "--offline")])
def test_a_no_is_remembered(tmp_path: Path, thriftbit_environment: dict[str, str], arguments: tuple[str, ...]) -> None:
    environment = thriftbit_environment | {"THRIFTBIT_CACHE": str(tmp_path)}
    first = at_a_terminal(environment, *arguments)
    first.expect_exact(QUESTION)
    first.sendline("n")
    first.expect_exact("Later: thriftbit doctor --measure")
    first.expect(pexpect.EOF)
    again = at_a_terminal(environment, *arguments)
    again.expect(pexpect.EOF)
    assert QUESTION not in again.before and "memory" in again.before


def test_ctrl_c_at_the_question_ends_it(tmp_path: Path, thriftbit_environment: dict[str, str]) -> None:
    asked = at_a_terminal(thriftbit_environment | {"THRIFTBIT_CACHE": str(tmp_path)}, "doctor")
    asked.expect_exact(QUESTION)
    asked.sendintr()
    asked.expect(pexpect.EOF)
    asked.wait()
    assert asked.exitstatus == 130 and not (tmp_path / "machine").exists()


def test_scripts_and_json_are_not_asked(
    run_thriftbit: RunThriftbit, tmp_path: Path, thriftbit_environment: dict[str, str]
) -> None:
    assert QUESTION not in run_thriftbit("doctor", THRIFTBIT_CACHE=str(tmp_path)).stderr
    asked = at_a_terminal(thriftbit_environment | {"THRIFTBIT_CACHE": str(tmp_path)}, "doctor", "--json")
    asked.expect(pexpect.EOF)
    assert QUESTION not in asked.before


def test_other_hardware_is_asked_about_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTBIT_CACHE", str(tmp_path))
    facts = detect()
    other = replace(facts, processor=replace(facts.processor, name=known("another", "test")))
    assert standing(facts) is Standing.NEW
    remember_no(facts)
    assert standing(facts) is Standing.DECLINED and standing(other) is Standing.NEW
    store_profile(Profile(facts, measured_at="2026-11-27T12:00:00+00:00"))
    assert standing(facts) is Standing.MEASURED and standing(other) is Standing.CHANGED
    (tmp_path / "machine" / "not-measured.json").write_bytes(b"\xff")
    (tmp_path / "machine" / "profile.json").unlink()
    assert standing(facts) is Standing.NEW
