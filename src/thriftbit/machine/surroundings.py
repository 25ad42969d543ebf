"""Everything that detection reads, behind four questions: a file's text, a folder's names, a program's answer, a
library's answer.

A detector never touches the system itself. So its conclusions can be tested with answers that were recorded on other
computers. `LiveSurroundings` is this computer. Whatever cannot be read raises UnreadableError with a reason in words,
and `attempt` turns it into a fact without a value. So a broken driver or a locked folder stops nothing else.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from thriftbit.machine.facts import Fact, known, unknown
from thriftbit.machine.libraries import ANSWERS
from thriftbit.machine.unreadable import UnreadableError

T = TypeVar("T")

_PATIENCE_SECONDS = 10.0
_LARGEST_TEXT_BYTES = 4 << 20
_TOO_LARGE, _MOST_PROCESSORS = 1 << 63, 1 << 16
_NOT_UNDERSTOOD = (ValueError, KeyError, IndexError, TypeError, AttributeError, ZeroDivisionError, StopIteration)


class Surroundings(Protocol):
    """system: "Linux", "Darwin" or "Windows". release: the kernel's. architecture: "x86_64", "arm64", ..."""

    system: str
    release: str
    architecture: str

    def text(self, path: str) -> str:
        """Return what stands in the file; UnreadableError."""
        ...

    def names(self, folder: str) -> list[str]:
        """Return the names in the folder, sorted; none if it is not there."""
        ...

    def output(self, *command: str) -> str:
        """Return what the program prints; UnreadableError."""
        ...

    def answer(self, library: str) -> Mapping[str, Any]:
        """Return what a library says, as JSON has it: "psutil", "cpuinfo", "nvml"; UnreadableError."""
        ...


class LiveSurroundings:
    def __init__(self) -> None:
        self.system = platform.system()
        self.release = platform.release()
        self.architecture = platform.machine()
        self._answers: dict[str, Mapping[str, Any]] = {}

    def text(self, path: str) -> str:
        try:
            with Path(path).open("rb") as file:
                return file.read(_LARGEST_TEXT_BYTES).decode("utf-8", errors="replace")
        except FileNotFoundError:
            raise UnreadableError("this system does not have it") from None
        except OSError as error:
            raise UnreadableError(f"cannot be read: {error.strerror}") from None

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(each.name for each in Path(folder).iterdir())
        except OSError:
            return []

    def output(self, *command: str) -> str:
        program = shutil.which(command[0])
        if program is None:
            raise UnreadableError(f"{Path(command[0]).name} is not there")
        try:
            ended = subprocess.run(
                [program, *command[1:]],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_PATIENCE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise UnreadableError(f"{Path(command[0]).name} did not answer in {_PATIENCE_SECONDS:.0f} s") from None
        except OSError as error:
            raise UnreadableError(f"{Path(command[0]).name} cannot be run: {error.strerror}") from None
        printed = (ended.stdout.strip() or ended.stderr.strip()).decode("utf-8", errors="replace")
        printed = printed.replace(str(Path.home()), "~")  # facts name nobody
        if ended.returncode:
            first_line = printed.partition("\n")[0][:200]
            raise UnreadableError(f"{Path(command[0]).name} failed: {first_line or f'status {ended.returncode}'}")
        return printed

    def answer(self, library: str) -> Mapping[str, Any]:
        if library not in self._answers:
            self._answers[library] = ANSWERS[library]()
        return self._answers[library]


def attempt(source: str, read: Callable[[], T | None], nothing: str = "not said") -> Fact[T]:
    """Return the fact that `read` gives. If it gives None (for the reason `nothing`) or fails: unknown, and why."""
    try:
        value = read()
    except UnreadableError as error:
        return unknown(str(error), source)
    except _NOT_UNDERSTOOD:
        return unknown("what stands there is not understood", source)
    return unknown(nothing, source) if value is None else known(value, source)


def first_known(*facts: Fact[T]) -> Fact[T]:
    """Return the first that is known, otherwise the first."""
    return next((fact for fact in facts if fact.value is not None), facts[0])


def number(surroundings: Surroundings, path: str) -> int:
    """ValueError for what is none, or none that a system would write"""
    value = int(surroundings.text(path).strip(), 0)
    if not 0 <= value < _TOO_LARGE:
        raise ValueError(value)
    return value


def number_or_none(surroundings: Surroundings, path: str) -> int | None:
    try:
        return number(surroundings, path)
    except (UnreadableError, ValueError):
        return None


def text_or_empty(surroundings: Surroundings, path: str) -> str:
    try:
        return surroundings.text(path)
    except UnreadableError:
        return ""


def json_output(surroundings: Surroundings, *command: str) -> dict[str, Any]:
    """Return the object that a program prints as JSON."""
    text = surroundings.output(*command).lstrip("\ufeff")
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise UnreadableError(f"{command[0]} did not answer in JSON")
    return answer


def keyed_lines(text: str, separator: str = ":") -> dict[str, str]:
    """Return "MemTotal:  16 kB" as {"MemTotal": "16 kB"}; of a key that comes twice, the first."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, between, value = line.partition(separator)
        if between:
            found.setdefault(key.strip(), value.strip())
    return found


def cpu_list(text: str) -> list[int]:
    """Return "0-3,8" as [0, 1, 2, 3, 8]."""
    numbers: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        if int(last or first) > _MOST_PROCESSORS:
            raise ValueError(part)
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def unique(values: Sequence[T]) -> list[T]:
    return list(dict.fromkeys(values))
