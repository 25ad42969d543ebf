"""JSON from strangers, read strictly.

A model folder is full of JSON that somebody else wrote: config.json, the index of the shards, the header of every
safetensors file. Python's parser lets a repeated key win silently and answers deep nesting with RecursionError; here
each of these is one ThriftbitError that names the file. NaN, Infinity and -Infinity are no JSON, but Python writes them
and transformers reads them, so the JSON files of a folder may hold them; whoever needs a number checks that it is
finite. The header of a safetensors file may not, as its specification says.
"""

from __future__ import annotations

import json
import stat
from collections import Counter
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

from thriftbit.errors import ThriftbitError, shown

JSON_LIMIT_BYTES = 64 << 20  # the largest honest file, the tokenizer of a quarter of a million tokens, is half of it


def parse_json_object(data: bytes, origin: str, *, python_constants: bool = False) -> dict[str, Any]:
    """-> the object in `data`; `origin` says in an error where the bytes came from. python_constants: whether NaN,
    Infinity and -Infinity are taken for numbers"""
    constant = float if python_constants else _no_constant
    try:
        value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_without_duplicates, parse_constant=constant)
    except RecursionError:
        raise ThriftbitError(f"{origin} is nested too deeply to be real") from None
    except ValueError as error:  # also what JSON and Unicode errors are
        raise ThriftbitError(f"{origin} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ThriftbitError(f"{origin} should hold a JSON object, not a {type(value).__name__}")
    return value


def read_json_object(path: Path) -> dict[str, Any]:
    with open_regular(path) as file:
        data = file.read(JSON_LIMIT_BYTES + 1)
    if len(data) > JSON_LIMIT_BYTES:
        raise ThriftbitError(f"{path} is larger than {JSON_LIMIT_BYTES >> 20} MiB, which no file of this kind is")
    return parse_json_object(data, str(path), python_constants=True)


def open_regular(path: Path) -> BufferedReader:
    """-> the file open for reading. Anything but a readable regular file is a ThriftbitError: a missing one, a loop of
    symbolic links, a folder, a pipe (which would hang)."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ThriftbitError(f"{path} is not a regular file")
        return path.open("rb")
    except FileNotFoundError:
        broken = path.is_symlink()
        raise ThriftbitError(
            f"{path} is a symbolic link to a file that is not there" if broken else f"{path} does not exist"
        ) from None
    except OSError as error:
        raise ThriftbitError(f"cannot read {path}: {error.strerror}") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {shown(repeated)} appears twice")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
