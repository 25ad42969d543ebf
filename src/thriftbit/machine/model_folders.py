"""Folders where programs keep models, and how much is in them.

The places are documented by the programs themselves: first an environment variable, then a folder of the user's. They
are shown without the user's name: below the home folder as "~/...", elsewhere by the variable that leads there.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from thriftbit.folders import cache_folder
from thriftbit.machine.facts import CacheFound, Fact, known, unknown

_PATIENCE_SECONDS = 3.0


@dataclass(frozen=True)
class ModelFolder:
    """shown: without anything that names the user"""

    name: str
    path: Path
    shown: str


def model_folders(environment: Mapping[str, str] | None = None, home: Path | None = None) -> list[ModelFolder]:
    """Return the folders that exist on this computer."""
    environment = os.environ if environment is None else environment
    home = home or Path.home()
    folders = {folder.path: folder for folder in _places(environment, home) if folder.path.is_dir()}
    return list(folders.values())


def found_caches(folders: list[ModelFolder]) -> tuple[CacheFound, ...]:
    return tuple(CacheFound(folder.name, folder.shown, folder_size(folder.path)) for folder in folders)


def folder_size(folder: Path, patience_seconds: float = _PATIENCE_SECONDS) -> Fact[int]:
    """Return the bytes of all files below, each counted once: the Hub's cache links to one file from several places."""
    deadline = time.monotonic() + patience_seconds
    size_bytes, left, hidden = 0, [folder], False
    seen: set[tuple[int, int]] = set()
    while left:
        if time.monotonic() > deadline:
            return unknown("too many files to count quickly", "the folder")
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        left.append(Path(entry.path))
                    elif entry.is_file(follow_symlinks=False):
                        state = entry.stat(follow_symlinks=False)
                        if (state.st_dev, state.st_ino) not in seen or not state.st_ino:
                            seen.add((state.st_dev, state.st_ino))
                            size_bytes += state.st_size
        except OSError:
            hidden = True
    return unknown("part of it may not be read", "the folder") if hidden else known(size_bytes, "the folder")


def shown_path(path: Path, home: Path, otherwise: str) -> str:
    """Return "~/models/a" for what is in the home folder, as the rest of a path may name people as well."""
    try:
        return (Path("~") / path.relative_to(home)).as_posix()
    except ValueError:
        return otherwise


def _places(environment: Mapping[str, str], home: Path) -> Iterator[ModelFolder]:
    caches = _cache_home(environment, home)
    hub = environment.get("HF_HUB_CACHE")
    hub_home = environment.get("HF_HOME")
    if hub:
        yield ModelFolder("Hugging Face", Path(hub), shown_path(Path(hub), home, "$HF_HUB_CACHE"))
    elif hub_home:
        yield ModelFolder(
            "Hugging Face", Path(hub_home) / "hub", shown_path(Path(hub_home) / "hub", home, "$HF_HOME/hub")
        )
    else:
        path = Path(environment.get("XDG_CACHE_HOME") or home / ".cache") / "huggingface" / "hub"
        yield ModelFolder("Hugging Face", path, shown_path(path, home, "$XDG_CACHE_HOME/huggingface/hub"))
    ollama = environment.get("OLLAMA_MODELS")
    if ollama:
        yield ModelFolder("Ollama", Path(ollama), shown_path(Path(ollama), home, "$OLLAMA_MODELS"))
    for path in (home / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")):
        yield ModelFolder("Ollama", path, shown_path(path, home, path.as_posix()))
    for path in (home / ".lmstudio" / "models", home / ".cache" / "lm-studio" / "models"):
        yield ModelFolder("LM Studio", path, shown_path(path, home, ""))
    llama = environment.get("LLAMA_CACHE")
    path = Path(llama) if llama else caches / "llama.cpp"
    yield ModelFolder("llama.cpp", path, shown_path(path, home, "$LLAMA_CACHE"))
    yield ModelFolder("Thriftbit", cache_folder(), shown_path(cache_folder(), home, "$THRIFTBIT_CACHE"))


def _cache_home(environment: Mapping[str, str], home: Path) -> Path:
    """Return the folder in which llama.cpp keeps its cache."""
    if sys.platform == "darwin":
        return home / "Library" / "Caches"
    if sys.platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local")
    return Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
