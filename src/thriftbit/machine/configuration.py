"""config.toml: what the user wants by default, for every command and for this program as a whole.

    offline = true                # for every command that has this option

    [chat]                        # for `thriftbit chat`
    context = "16k"
    set = ["temperature=0.2"]

    [library]
    folders = ["~/models"]        # folders of one's own, in which models are looked for

The file is in the user's configuration folder; THRIFTBIT_CONFIG moves it. It is read here and nowhere else. What the
keys mean is up to the readers: `library/disk_search.py` for [library], `cli/config.py` for options of the command line.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import platformdirs

from thriftbit.containers.regular_files import read_regular_text
from thriftbit.errors import ThriftbitError

_LARGEST_BYTES = 4 << 20


def configuration_file() -> Path:
    """Return the user's config.toml, which may not exist; THRIFTBIT_CONFIG moves it."""
    given = os.environ.get("THRIFTBIT_CONFIG")
    return Path(given) if given else Path(platformdirs.user_config_dir("thriftbit", appauthor=False)) / "config.toml"


def read_configuration(file: Path | None = None) -> dict[str, Any]:
    """Return what config.toml says; {} if there is none. ThriftbitError for a file that cannot be used."""
    file = file or configuration_file()
    if not os.path.lexists(file):
        return {}
    try:
        return tomllib.loads(read_regular_text(file, _LARGEST_BYTES))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ThriftbitError(f"{file}: is not valid TOML: {error}") from None


def own_folders(file: Path | None = None) -> list[Path]:
    """Return the folders with models that config.toml names. ThriftbitError if the entry has another form."""
    file = file or configuration_file()
    section = read_configuration(file).get("library", {})
    folders = section.get("folders", []) if isinstance(section, dict) else None
    if not isinstance(folders, list) or not all(isinstance(folder, str) for folder in folders):
        raise ThriftbitError(f'{file}: [library] should say folders = ["~/models", …], a list of texts')
    return [Path(folder).expanduser() for folder in folders]
