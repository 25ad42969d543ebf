"""One hash of what a model computes. Whatever is kept of a model between runs is kept under this hash.

The problem: a calibration or a map of one model must never serve another. A model's fingerprint reads three rows of
each tensor, so two models may share it. The choice: a hash over every weight, and over the settings that decide the
computation (the base of rotary embeddings, for example).

Reading every weight takes seconds per gigabyte. So the hash is remembered with the size and the time of change of the
model's files, for models that are as `open_model` returned them.
"""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from thriftbit.containers.atomic_file import AtomicFile
from thriftbit.containers.regular_files import read_regular
from thriftbit.errors import ThriftbitError
from thriftbit.folders import cache_folder

if TYPE_CHECKING:
    from thriftbit.sources.model import Model
    from thriftbit.sources.tensor import Tensor

REMEMBERED = "identities.json"  # below the cache
_MOST_REMEMBERED = 1000  # models
_LARGEST_BYTES = 1 << 20
_CHUNK_BYTES = 8 << 20  # of float32 rows
# keys of config.json that say who wrote it, not what is computed
_NOT_COMPUTED = ("transformers_version", "_name_or_path", "name_or_path")

_as_opened = WeakValueDictionary[int, "Model"]()  # models whose tensors are what their files hold, by their `id`


def is_as_opened(model: Model) -> None:
    """Note that the model's tensors are what its files hold, so that its hash may be remembered."""
    _as_opened[id(model)] = model


def identity_of(model: Model) -> str:
    """Return 64 hexadecimal digits that identify what the model computes.

    SHA-256 over the name, the shape and every value of each tensor as float32, the metadata of the architecture, and
    config.json for a class without a table. A checkpoint and its lossless GGUF agree.
    """
    key = _key(model)
    known = _remembered()
    if key is None or key not in known:
        weights = _weights(model)
        if key is not None:
            _remember({**known, key: weights})
    else:
        weights = known[key]
    return hashlib.sha256(f"{weights} {model.architecture} {_settings(model)}".encode()).hexdigest()


def _settings(model: Model) -> str:
    prefix = f"{model.architecture}."
    metadata = {name: np.asarray(model.metadata[name]).tolist() for name in model.metadata if name.startswith(prefix)}
    # a family with a table computes what its metadata say, from a folder and from a GGUF alike
    known = (model.config or {}) if model.conversion is not None else {}
    config = {name: value for name, value in known.items() if name not in _NOT_COMPUTED}
    return json.dumps([metadata, config], sort_keys=True, default=str)


def _weights(model: Model) -> str:
    digest = hashlib.sha256()
    for tensor in sorted(model.tensors, key=lambda tensor: tensor.name):
        digest.update(f"{tensor.name} {tensor.shape}\n".encode())
        for piece in _pieces(tensor):
            digest.update(piece)
    return digest.hexdigest()


def _pieces(tensor: Tensor) -> Iterator[memoryview]:
    for start, stop in tensor.chunks(_CHUNK_BYTES):
        if tensor.undecoded is not None:
            yield np.ascontiguousarray(tensor.undecoded(start, stop)).data.cast("B")
        else:
            yield np.ascontiguousarray(tensor.load(start, stop), dtype="<f4").data.cast("B")


def _key(model: Model) -> str | None:
    """Return what the model's weights are remembered under, None for a model that no files hold as it is."""
    files = _files(model) if _as_opened.get(id(model)) is model else []
    if not files:
        return None
    shapes = [(tensor.name, tensor.shape) for tensor in model.tensors]
    stated = [(str(path.resolve()), (state := path.stat()).st_size, state.st_mtime_ns) for path in files]
    return hashlib.sha256(f"{model.fingerprint} {shapes} {stated}".encode()).hexdigest()


def _files(model: Model) -> list[Path]:
    if model.folder is not None:
        return sorted(model.folder.glob("*.safetensors"))
    source = Path(model.source).expanduser()
    parts = re.sub(r"-\d{5}-of-", "-?????-of-", glob.escape(source.name))
    return sorted(source.parent.glob(parts)) if source.is_file() else []


def _remembered() -> dict[str, str]:
    with suppress(ThriftbitError, ValueError, RecursionError):
        found: Any = json.loads(read_regular(cache_folder() / REMEMBERED, _LARGEST_BYTES))
        if isinstance(found, dict):
            return {key: value for key, value in found.items() if isinstance(value, str) and len(value) == 64}
    return {}


def _remember(known: dict[str, str]) -> None:
    """Write the hashes into the cache. If that fails, they are computed again the next time."""
    newest = dict(list(known.items())[-_MOST_REMEMBERED:])
    content = json.dumps(newest).encode()
    path = cache_folder() / REMEMBERED
    with suppress(OSError, ThriftbitError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with AtomicFile(path, len(content), force=True, private=True) as file:
            file.write(content)
