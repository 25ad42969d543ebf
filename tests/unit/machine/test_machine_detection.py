"""Detection: on recorded machines, on damaged ones, and on this one against the truth."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from recorded import MACHINES, RecordedSurroundings, recorded

from thriftbit.folders import cache_folder
from thriftbit.machine.detect import detect, facts_of
from thriftbit.machine.disks import existing_folder
from thriftbit.machine.facts import Fact, Facts, known
from thriftbit.machine.profile import Profile
from thriftbit.machine.unreadable import UnreadableError

FILES = sorted(MACHINES.glob("*.txt"))
GARBAGE = ("", "\0\xff\n", "-1", "nan", "[]", "{}", "null", '{"gpus": 3}', '{"gpus": [{}]}', ": : :\n\n\n:", "9" * 400)


def facts_from(machine: RecordedSurroundings) -> Facts:
    return facts_of(machine, machine.folder, known(1000, "a test"), known(500, "a test"))


def fact_at(facts: Any, place: str) -> Any:
    """Return "gpus.0.name" of the facts; of a list without a number its length."""
    for name in place.split("."):
        facts = facts[int(name)] if name.isdigit() else getattr(facts, name)
    if isinstance(facts, Fact):
        return list(facts.value) if isinstance(facts.value, tuple) else facts.value
    return len(facts) if isinstance(facts, tuple) else facts


def every_fact(value: Any) -> list[Fact[Any]]:
    if isinstance(value, Fact):
        return [value]
    if is_dataclass(value):
        return [fact for field in fields(value) for fact in every_fact(getattr(value, field.name))]
    return [fact for each in value for fact in every_fact(each)] if isinstance(value, tuple) else []


def assert_whole(facts: Facts) -> None:
    """Every fact has a source, every unknown one a reason, and the whole survives JSON"""
    for fact in every_fact(facts):
        assert fact.source
        assert (fact.value is None) == bool(fact.reason)
    assert Profile.from_json(Profile(facts).to_json()).facts == facts


def test_there_are_machines_of_every_kind() -> None:
    machines = [recorded(file) for file in FILES]
    assert len(machines) >= 12
    assert {machine.system for machine in machines} >= {"Linux", "Darwin", "Windows"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_recorded_machine(file: Path) -> None:
    machine = recorded(file)
    facts = facts_from(machine)
    expectations = [line for line in machine.expected.splitlines() if line]
    assert len(expectations) >= 3
    for line in expectations:
        place, relation, wanted = line.split(" ", 2)
        found = fact_at(facts, place)
        if relation == "~":
            assert json.loads(wanted) in found, place
        else:
            assert found == json.loads(wanted), place
    assert_whole(facts)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_damaged_machine_is_still_described(file: Path) -> None:
    """Each answer in turn is gone, forbidden, or nonsense; of many processors' the last one's"""
    machine = recorded(file)
    for name in {re.sub(r"/cpu\d+/", "/cpu/", name): name for name in machine.answers}.values():
        text = machine.answers[name]
        others = {other: answer for other, answer in machine.answers.items() if other != name}
        assert_whole(facts_from(replace(machine, answers=others)))
        refused = replace(machine, answers=others, refusals={**machine.refusals, name: "cannot be read: forbidden"})
        assert_whole(facts_from(refused))
        chance = random.Random(name)
        broken = ["".join(character for character in text if chance.random() > share) for share in (0.01, 0.1)]
        for nonsense in (*GARBAGE, text[: len(text) // 2], *broken):
            if not name.startswith("@") or _is_object(nonsense):
                assert_whole(facts_from(replace(machine, answers={**others, name: nonsense})))


def _is_object(text: str) -> bool:
    """Libraries answer with a dictionary, whatever is in it"""
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def test_an_empty_machine_is_described() -> None:
    for system in ("Linux", "Darwin", "Windows", "Plan9"):
        facts = facts_from(RecordedSurroundings(system, "1", "x86_64", "/", {}))
        assert_whole(facts)
        assert facts.memory.total_bytes.value is None and facts.gpus == ()


def test_this_machine_is_what_the_libraries_and_df_say() -> None:
    facts = detect()
    assert_whole(facts)
    memory = psutil.virtual_memory()
    assert facts.memory.installed_bytes.value == memory.total
    assert facts.memory.total_bytes.value is not None and facts.memory.total_bytes.value <= memory.total
    assert facts.memory.available_bytes.value == pytest.approx(memory.available, rel=0.2)
    assert facts.processor.logical_cores.value == os.cpu_count()
    assert facts.processor.physical_cores.value == psutil.cpu_count(logical=False)
    assert facts.memory.swap_total_bytes.value == psutil.swap_memory().total
    assert 0 < (facts.processor.usable_cores.value or 0) <= psutil.cpu_count()
    folder = existing_folder(cache_folder())
    assert facts.disk.total_bytes.value == shutil.disk_usage(folder).total
    shown = subprocess.run(["df", "--output=fstype", folder], capture_output=True, text=True, check=True).stdout
    assert facts.disk.filesystem.value == shown.split()[-1]


def test_this_machine_has_the_instructions_that_its_processor_says() -> None:
    import cpuinfo

    flags = set(cpuinfo.get_cpu_info()["flags"])
    sets = detect().processor.instruction_sets.value or ()
    assert ("AVX2" in sets) == ("avx2" in flags)
    assert ("AVX-512" in sets) == ("avx512f" in flags)
    assert ("NEON" in sets) == bool({"asimd", "neon"} & flags)


def test_no_fact_names_the_owner() -> None:
    document = Profile(detect()).to_json()
    host = os.uname().nodename
    assert host not in document
    assert str(Path.home()) not in document


def test_what_cannot_be_had_says_why() -> None:
    machine = RecordedSurroundings("Linux", "6", "x86_64", "/", {}, {"/proc/meminfo": "cannot be read: forbidden"})
    with pytest.raises(UnreadableError, match="forbidden"):
        machine.text("/proc/meminfo")
    assert facts_from(machine).memory.total_bytes.reason == "cannot be read: forbidden"
