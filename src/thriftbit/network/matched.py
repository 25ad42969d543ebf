"""A GGUF's tensors as transformers' parameters, matched by content, for families without a table.

The original is needed: its configuration says which code to run, and its weights say which row is which. Quantized
versions have the same tensors under the same names, so the original's result holds for them. It is computed once and
kept in the user's cache, because the checkpoint and its conversion have to be read for it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from thriftbit.errors import ThriftbitError, enumeration
from thriftbit.folders import cache_folder
from thriftbit.network.checkpoint_parameters import CheckpointParameters
from thriftbit.network.configuration import configuration_of
from thriftbit.network.matching import Origin, find_origins, is_matrix
from thriftbit.network.skeleton import find_layers, without_weights
from thriftbit.sources.model import Conversion, Model
from thriftbit.sources.tensor import FloatArray, Tensor

_logger = logging.getLogger(__name__)

VERSION = 1  # of the kept file
_matched = WeakKeyDictionary[Conversion, "Matched"]()
_FIELDS = ("tensor", "line", "across", "turned", "columns")


@dataclass(frozen=True)
class Matched:
    """origins: where parameters are in the container's tensors. checkpoint: the source of all other parameters.
    layers_name: the name of the model's list of layers."""

    origins: Mapping[str, Origin]
    checkpoint: CheckpointParameters
    layers_name: str

    def load(self, name: str, tensors: Sequence[Tensor]) -> torch.Tensor:
        """Return the parameter as float32, in transformers' shape. tensors: of the original or of a quantized
        version."""
        shape = self.checkpoint.shape(name)
        if name not in self.origins:
            return self.checkpoint.load(name)
        origin = self.origins[name]
        lines = np.empty((len(origin.line), shape[-2] if origin.turned else shape[-1]), np.float32)
        for tensor in np.unique(origin.tensor).tolist():
            _fill(lines, origin, tensor, tensors[tensor])
        if origin.columns is not None:
            lines = lines[:, origin.columns]
        if origin.turned:
            values = lines.reshape(*shape[:-2], shape[-1], shape[-2]).swapaxes(-1, -2)
            return torch.from_numpy(np.ascontiguousarray(values))
        return torch.from_numpy(lines.reshape(shape))

    def rows(self, name: str, numbers: Sequence[int], tensors: Sequence[Tensor]) -> torch.Tensor:
        """Return float32 (len(numbers), width): these rows of a matrix, for example of an embedding."""
        origin = self.origins.get(name)
        if origin is None or not origin.is_plain:
            return self.checkpoint.rows(name, numbers)
        places = zip(origin.tensor[list(numbers)].tolist(), origin.line[list(numbers)].tolist(), strict=True)
        return torch.from_numpy(np.concatenate([tensors[tensor].load(line, line + 1) for tensor, line in places]))


def match(model: Model) -> Matched:
    """Return where transformers' parameters are in the model's tensors. The result is kept for the next time.

    model: with its conversion. Raises ThriftbitError if a matrix of the container is in no parameter, because the
    computation would lack it."""
    conversion = model.conversion
    assert conversion is not None
    if conversion in _matched:
        return _matched[conversion]
    model = replace(model, tensors=conversion.tensors)  # this one may be a quantized version
    code = without_weights(configuration_of(model))
    layers_name, layers = find_layers(code, code.config.get_text_config().num_hidden_layers)
    checkpoint = CheckpointParameters(code, conversion.checkpoint.tensors, model.source)
    kept = cache_folder() / "matched" / f"{_identity(model)}.npz"
    origins = _read(kept)
    if origins is None:
        megabytes = 4 * sum(tensor.parameters for tensor in model.tensors) / 1e6
        _logger.info(
            f"Finding where the weights lie by comparing {megabytes:,.0f} MB of them; needed once for each model"
        )
        origins = find_origins(model.tensors, list(_matrices(checkpoint)))
        _refuse_unused(model, origins, len(layers))
        _write(kept, origins)
    _matched[conversion] = Matched(origins, checkpoint, layers_name)
    return _matched[conversion]


def _matrices(checkpoint: CheckpointParameters) -> Iterator[tuple[str, Callable[[], FloatArray]]]:
    for name in checkpoint.names:
        if len(checkpoint.shape(name)) > 1:
            yield name, partial(_values, checkpoint, name)


def _values(checkpoint: CheckpointParameters, name: str) -> FloatArray:
    values: FloatArray = checkpoint.load(name).numpy()
    return values


def _refuse_unused(model: Model, origins: Mapping[str, Origin], layers: int) -> None:
    """Raise ThriftbitError for a matrix that no parameter has. Layers behind the last one are allowed: they guess
    tokens after the next, and neither transformers nor llama.cpp compute with them by default."""
    used = {number for origin in origins.values() for number in np.unique(origin.tensor).tolist()}
    unused = [
        tensor.name
        for number, tensor in enumerate(model.tensors)
        if number not in used and _is_matrix(tensor) and not _is_behind(tensor.name, layers)
    ]
    if unused:
        raise ThriftbitError(
            f"{model.source}: {enumeration(unused)}: transformers computes with no matrix that has these rows, so it "
            "can be quantized, but not calibrated or measured against its original"
        )


def _is_matrix(tensor: Tensor) -> bool:
    """Return whether the tensor may be quantized. Norms and vectors, also those stored as one column, never are."""
    return is_matrix(tensor) and tensor.rows > 1 and tensor.name.endswith(".weight") and "norm" not in tensor.name


def _is_behind(name: str, layers: int) -> bool:
    block, _, _ = name.removeprefix("blk.").partition(".")
    return name.startswith("blk.") and block.isdecimal() and int(block) >= layers


def _fill(lines: FloatArray, origin: Origin, number: int, tensor: Tensor) -> None:
    """Fill in the lines that come from this tensor. number: the tensor's."""
    wanted = np.flatnonzero((origin.tensor == number) & ~origin.across)
    for first, last in _runs(origin.line[wanted]):
        start = int(origin.line[wanted[first]])
        lines[wanted[first:last]] = tensor.load(start, start + last - first)
    across = np.flatnonzero((origin.tensor == number) & origin.across)
    matrices, columns = np.divmod(origin.line[across], tensor.width)
    for matrix in np.unique(matrices).tolist():
        values = tensor.load(matrix * tensor.matrix_rows, (matrix + 1) * tensor.matrix_rows)
        here = matrices == matrix
        lines[across[here]] = values[:, columns[here]].T


def _runs(numbers: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Iterator[tuple[int, int]]:
    """Return (first, last) ranges over which the numbers go up by exactly one."""
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    edges = [0, *breaks.tolist(), len(numbers)]
    return ((first, last) for first, last in pairwise(edges) if first < last)


def _identity(model: Model) -> str:
    digest = hashlib.sha256(f"{VERSION} {model.fingerprint}".encode())
    digest.update(json.dumps(model.config, sort_keys=True, default=str).encode())
    for tensor in model.tensors:
        digest.update(f"{tensor.name} {tensor.shape}\n".encode())
    return digest.hexdigest()[:32]


def _write(path: Path, origins: Mapping[str, Origin]) -> None:
    """Write the origins to a file, which gets its name when it is complete."""
    arrays: dict[str, Any] = {}
    for name, origin in origins.items():
        values = (origin.tensor, origin.line, origin.across, origin.turned, origin.columns)
        arrays |= {f"{name}/{f}": np.asarray([] if v is None else v) for f, v in zip(_FIELDS, values, strict=True)}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, **arrays)
    temporary.replace(path)


def _read(path: Path) -> dict[str, Origin] | None:
    """Return the kept origins; None if there are none, or they are damaged or of another version."""
    try:
        with np.load(path) as file:
            names = dict.fromkeys(key.rpartition("/")[0] for key in file.files)
            return {name: _origin([file[f"{name}/{field}"] for field in _FIELDS]) for name in names}
    except (OSError, ValueError, KeyError):
        return None


def _origin(parts: list[np.ndarray[tuple[int, ...], np.dtype[np.generic]]]) -> Origin:
    tensor, line, across, turned, columns = parts
    order = columns.astype(np.int64) if columns.size else None
    return Origin(tensor.astype(np.int64), line.astype(np.int64), across.astype(np.bool_), bool(turned), order)
