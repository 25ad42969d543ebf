"""Programs that run models, found on PATH and in the places where their installers put them.

Each program is asked for its version, and none is started. The built-in engine is not looked for here: it says itself
what it can use (`runtime/examine.py`).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from thriftbit.machine.facts import EngineFound, Fact, unknown
from thriftbit.machine.model_folders import shown_path
from thriftbit.machine.surroundings import Surroundings, attempt


@dataclass(frozen=True)
class _Program:
    """command: on PATH. places: elsewhere; "~" and "$NAME" are filled in. version: in what `command --version` prints;
    None if asking would open a window."""

    name: str
    command: str
    places: tuple[str, ...]
    version: str | None


_PROGRAMS = (
    _Program("llama-server", "llama-server", ("/opt/homebrew/bin/llama-server",), r"version: (\d+)"),
    _Program("llama-cli", "llama-cli", ("/opt/homebrew/bin/llama-cli",), r"version: (\d+)"),
    _Program(
        "Ollama",
        "ollama",
        (
            "/usr/local/bin/ollama",
            "/Applications/Ollama.app/Contents/Resources/ollama",
            "$LOCALAPPDATA/Programs/Ollama/ollama.exe",
        ),
        r"version (?:is )?(\d[\w.\-]*)",
    ),
    _Program(
        "LM Studio",
        "lms",
        (
            "~/.lmstudio/bin/lms",
            "~/.cache/lm-studio/bin/lms",
            "/Applications/LM Studio.app",
            "$LOCALAPPDATA/Programs/LM Studio/LM Studio.exe",
        ),
        None,
    ),
)


def found_programs(
    surroundings: Surroundings,
    environment: Mapping[str, str] | None = None,
    home: Path | None = None,
    which: Callable[[str], str | None] = shutil.which,
) -> tuple[EngineFound, ...]:
    environment = os.environ if environment is None else environment
    home = home or Path.home()
    found = []
    for program in _PROGRAMS:
        path = _find(program, environment, home, which)
        if path is not None:
            shown = shown_path(path, home, path.as_posix())
            found.append(
                EngineFound(program.name, shown, _version(surroundings, program, path), unknown("not asked", shown))
            )
    return tuple(found)


def _find(
    program: _Program, environment: Mapping[str, str], home: Path, which: Callable[[str], str | None]
) -> Path | None:
    on_path = which(program.command)
    places: Sequence[Path] = [Path(on_path)] if on_path else []
    places = [*places, *(place for each in program.places if (place := _filled(each, environment, home)))]
    return next((place for place in places if place.exists()), None)


def _filled(place: str, environment: Mapping[str, str], home: Path) -> Path | None:
    if place.startswith("~/"):
        return home / place[2:]
    if place.startswith("$"):
        name, _, rest = place[1:].partition("/")
        return Path(environment[name]) / rest if environment.get(name) else None
    return Path(place)


def _version(surroundings: Surroundings, program: _Program, path: Path) -> Fact[str]:
    if program.version is None:
        return unknown("not asked", program.command)
    pattern = program.version

    def read() -> str | None:
        found = re.search(pattern, surroundings.output(str(path), "--version"))
        return found[1] if found else None

    return attempt(f"{program.command} --version", read)
