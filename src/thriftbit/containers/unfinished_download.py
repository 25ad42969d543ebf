"""Downloads that stopped in the middle: what is told about them, and how to go on.

Programs keep what has arrived under another name until the file is whole. A folder with such a file, or with a part
of a model missing, needs no riddle about tensors but one sentence: how the download is finished.
"""

from __future__ import annotations

import re
from pathlib import Path

from thriftbit.strangers import quoted

SUFFIXES = (
    *(".incomplete", ".crdownload", ".part", ".partial", ".download", ".aria2"),  # huggingface_hub, browsers, tools
    *(".downloadInProgress", ".thriftbit-partial"),  # llama.cpp, and our own
)
_REPOSITORY = re.compile(r"models--([\w.-]+?)--([\w.-]+)", re.ASCII)


def is_unfinished(path: Path) -> bool:
    """Return whether its name says that it is part of a file which is still to come."""
    return path.name.endswith(SUFFIXES)


def how_to_finish(path: Path) -> str:
    """Return a sentence on how to finish the download of a file or folder."""
    repository = next((match for part in path.parts if (match := _REPOSITORY.fullmatch(part))), None)
    if repository:
        return f"Finish the download: hf download {quoted(f'{repository[1]}/{repository[2]}')}"
    folder = path if path.is_dir() else path.parent
    begun = _begun(folder)
    if begun:
        return f"Finish the download, of which {begun.name} is a part, with the program that began it"
    return "Finish the download, or start it again"


def _begun(folder: Path) -> Path | None:
    """Return an unfinished file in the folder, or where `hf download --local-dir` keeps its own, further below."""
    places = (folder, folder / ".cache" / "huggingface" / "download")
    try:
        return next(
            (file for place in places if place.is_dir() for file in place.iterdir() if is_unfinished(file)), None
        )
    except OSError:
        return None
