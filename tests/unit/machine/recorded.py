"""Surroundings that were written down: what files, programs and libraries say on another computer.

One text file is one machine. Its first lines say `system`, `release`, `architecture`, and `folder` for models. Then
come sections, each under a line "== WHERE":

    == /proc/meminfo               a file
    == $ nvidia-smi                a program's output, whatever its arguments
    == @psutil                     a library's answer, as JSON
    == /sys/x ! no permission      cannot be had, and why; so can "$ program" and "@library"
    == expected                    lines "fact = JSON", or "fact ~ JSON text" that is part of it

Repetition is written short. Braces in a path are several files, "{n}" in their text is the number: cpu{0-3,8}. A file
with "* 4" repeats its text with {n} from 0 to 3; with "+" the text is appended, with "+ 4-7" repeated so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thriftbit.machine.surroundings import cpu_list
from thriftbit.machine.unreadable import UnreadableError

MACHINES = Path(__file__).parent / "machines"
NOTHING = "this system does not have it"


@dataclass
class RecordedSurroundings:
    system: str
    release: str
    architecture: str
    folder: str
    answers: dict[str, str]
    refusals: dict[str, str] = field(default_factory=dict)
    expected: str = ""

    def text(self, path: str) -> str:
        return self._answer(path)

    def names(self, folder: str) -> list[str]:
        below = f"{folder}/"
        found = {*self.answers, *self.refusals}
        return sorted({path.removeprefix(below).partition("/")[0] for path in found if path.startswith(below)})

    def output(self, *command: str) -> str:
        return self._answer(f"$ {command[0]}", f"{command[0]} is not there")

    def answer(self, library: str) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = json.loads(self._answer(f"@{library}", f"{library} does not answer"))
        return answer

    def _answer(self, name: str, nothing: str = NOTHING) -> str:
        if name in self.answers:
            return self.answers[name]
        raise UnreadableError(self.refusals.get(name, nothing))


def recorded(path: Path) -> RecordedSurroundings:
    head, *sections = re.split(r"^== ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    machine = RecordedSurroundings(**dict(re.findall(r"^(\w+): (.*)$", head, re.MULTILINE)), answers={})
    for section in sections:
        title, _, text = section.partition("\n")
        name, _, reason = title.partition(" ! ")
        if reason:
            machine.refusals[name] = reason
        elif name == "expected":
            machine.expected = text
        else:
            _add(machine.answers, name, text)
    return machine


def _add(answers: dict[str, str], name: str, text: str) -> None:
    if repeated := re.fullmatch(r"(.+) \* (\d+)", name):
        answers[repeated[1]] = "".join(text.replace("{n}", str(number)) for number in range(int(repeated[2])))
    elif appended := re.fullmatch(r"(.+) \+ ?([\d-]*)", name):
        numbers = cpu_list(appended[2]) or [0]
        answers[appended[1]] += "".join(text.replace("{n}", str(number)) for number in numbers)
    elif braces := re.search(r"\{([\d,-]+)\}", name):
        for number in cpu_list(braces[1]):
            answers[name.replace(braces[0], str(number))] = text.replace("{n}", str(number))
    else:
        answers[name] = text
