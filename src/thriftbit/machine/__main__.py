"""Prints what detection asks this computer and what it answers: `python -m thriftbit.machine > machine.txt`

The output is in the notation of the tests' machines, so a computer that is read wrongly can become a test. Look through
it before you send it: texts are as the system gives them, and some name the mounted disks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from thriftbit.folders import cache_folder
from thriftbit.machine.detect import facts_of
from thriftbit.machine.disks import disk_space, existing_folder
from thriftbit.machine.surroundings import LiveSurroundings
from thriftbit.machine.unreadable import UnreadableError


class RecordingSurroundings(LiveSurroundings):
    """answers, refusals: what was said, by question."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, str] = {}
        self.refusals: dict[str, str] = {}

    def text(self, path: str) -> str:
        return self._kept(path, lambda: super(RecordingSurroundings, self).text(path))

    def output(self, *command: str) -> str:
        return self._kept(f"$ {command[0]}", lambda: super(RecordingSurroundings, self).output(*command))

    def answer(self, library: str) -> Mapping[str, Any]:
        def ask() -> str:
            return json.dumps(super(RecordingSurroundings, self).answer(library))

        answer: Mapping[str, Any] = json.loads(self._kept(f"@{library}", ask))
        return answer

    def _kept(self, question: str, ask: Any) -> str:
        try:
            self.answers[question] = str(ask())
        except UnreadableError as error:
            self.refusals[question] = str(error)
            raise
        return self.answers[question]


def main() -> None:
    surroundings = RecordingSurroundings()
    folder = existing_folder(cache_folder()).resolve()
    facts_of(surroundings, str(folder), *disk_space(folder))
    print(f"system: {surroundings.system}\nrelease: {surroundings.release}\narchitecture: {surroundings.architecture}")
    print(f"folder: {folder}\n")
    for question, answer in surroundings.answers.items():
        print(f"== {question}\n{answer.rstrip()}")
    for question, reason in surroundings.refusals.items():
        if "does not have it" not in reason:
            print(f"== {question} ! {reason}")


if __name__ == "__main__":
    main()
