"""JSON from strangers, read strictly.

A model folder is full of JSON that somebody else wrote: config.json, the index of the shards, the header of every
safetensors file. Python's parser lets a repeated key win silently and answers deep nesting with RecursionError; here
each of these is a ThriftbitError that names the file. NaN, Infinity and -Infinity are no JSON, but Python writes them
and transformers reads them, so the JSON files of a folder may hold them; whoever needs a number checks that it is
finite. The header of a safetensors file may not, as its specification says.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from thriftbit.containers.regular_files import read_regular
from thriftbit.errors import ThriftbitError, shown

_LARGE = ("tokenizer.json", ".index.json", "vocab.json")
SMALL_JSON_LIMIT_BYTES = 8 << 20  # a config.json has kilobytes; added tokens by the thousand take a few megabytes
JSON_LIMIT_BYTES = 64 << 20  # the largest honest file, the tokenizer of a quarter of a million tokens, is half of it


def parse_json_object(data: bytes, origin: str, *, python_constants: bool = False) -> dict[str, Any]:
    """Return the object in `data`. Raises ThriftbitError if there is none.

    origin: what errors call the place that the bytes came from. python_constants: whether NaN, Infinity and -Infinity
    are taken for numbers."""
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
    """Return the object in a file. Raises ThriftbitError for a file without one, or one that is too large for its
    name."""
    limit_bytes = JSON_LIMIT_BYTES if path.name.endswith(_LARGE) else SMALL_JSON_LIMIT_BYTES
    return parse_json_object(read_regular(path, limit_bytes), str(path), python_constants=True)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {shown(repeated)} appears twice")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
