"""Importance data ("imatrix"): how much each input of each matrix matters, as `llama-imatrix` measures it.

For every column of a matrix, importance is the mean of the squared activations that met the column while the model read
some text. The encoders weight their errors with it. Each expert has a row of its own. Two kinds of file are read:

- GGUF (since 2025): for each tensor NAME.in_sum2 (matrices, width), sums of squares, and NAME.counts (matrices, 1), or
  one count for all, to divide them by;
- the older .dat: a count of entries, then for each a name, a number of calls, and values to divide by it. Some files
  end with the number of chunks and the name of the text.

An expert that no token of the text reached has no data. It gets equal weights, as in llama.cpp. The same holds where
all data is zero, which makes llama.cpp's encoder divide by zero. Values are read when asked for and never kept: for a
mixture of 256 experts they would fill a gigabyte.

Left out: the sums of plain activations (NAME.in_sum) and the statistics of newer files, and separate entries for each
expert from before 2024.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from thriftbit.containers.gguf_reader import GGUFFile, TensorInfo, read_gguf
from thriftbit.containers.gguf_values import MAGIC
from thriftbit.containers.regular_files import open_regular
from thriftbit.errors import ThriftbitError
from thriftbit.quantization.presets import is_quantizable
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import FloatArray, Tensor

NAME_LIMIT_BYTES = 1024
_MOST_CHUNKS = 2**32 - 1  # that the key of a quantized file holds

# llama-imatrix does not collect them unless told to, and llama-quantize does without.
COMMONLY_MISSING = ("token_embd.weight", "per_layer_token_embd.weight", "output.weight")


@dataclass(frozen=True)
class Coverage:
    """missing: matrices of the model without importance, except embedding and output; they are quantized with equal
    weights. unreached: for matrices of experts, how many experts no token reached, or too few tokens in a calibration.
    """

    missing: tuple[str, ...]
    unreached: Mapping[str, int]


@dataclass(frozen=True)
class ImportanceMatrix:
    """An importance file, opened.

    datasets: the texts it was measured on, as far as the file knows. chunks: how many pieces of them, 0 if unknown.
    entries: GGUF tensor name -> a function that reads its values, float32 of any shape, zeros where there is no data.
    """

    path: Path
    datasets: tuple[str, ...]
    chunks: int
    entries: Mapping[str, Callable[[], FloatArray]]

    def for_tensor(self, tensor: Tensor) -> FloatArray | None:
        """Return float32 (matrices, width), with a positive value in every row; None if the file has nothing on this
        tensor.

        matrices: 1, or the number of experts. Raises ThriftbitError if the file was made from a model of another shape.
        """
        values = self._values(tensor)
        if values is not None:
            values[_unreached(values)] = 1
        return values

    def check(self, model: Model) -> Coverage:
        """Read everything once, so that errors are reported before the long run.

        Raises ThriftbitError that names the tensor for widths that do not fit and for impossible values, and if the
        file has nothing on this model at all.
        """
        missing, unreached = [], {}
        quantizable = [tensor for tensor in model.tensors if is_quantizable(tensor)]
        for tensor in quantizable:
            values = self._values(tensor)
            if values is None:
                missing.append(tensor.name)
            elif count := int(_unreached(values).sum()):
                unreached[tensor.name] = count
        if len(missing) == len(quantizable):
            raise ThriftbitError(f"{self.path}: knows none of the tensors of {model.source}; it is for another model")
        return Coverage(tuple(name for name in missing if name not in COMMONLY_MISSING), unreached)

    def _values(self, tensor: Tensor) -> FloatArray | None:
        if tensor.name not in self.entries:
            return None
        with np.errstate(invalid="ignore", over="ignore"):  # what that makes of damaged values is refused below
            values = self.entries[tensor.name]()
        matrices = tensor.rows // tensor.matrix_rows
        if values.size != matrices * tensor.width:
            raise ThriftbitError(
                f"{self.path}: has {values.size} values for {tensor.name}, which takes {matrices} × {tensor.width}; "
                "it is for another model"
            )
        if not (np.isfinite(values) & (values >= 0)).all():
            raise ThriftbitError(f"{self.path}: {tensor.name} has negative or non-finite values; make the file again")
        return values.reshape(matrices, tensor.width)


def read_importance(path: str | Path) -> ImportanceMatrix:
    """Return the importance data in a file of either kind. ThriftbitError if it is neither, damaged or empty."""
    path = Path(path)
    try:
        with open_regular(path) as file:
            is_gguf = file.read(len(MAGIC)) == MAGIC
            if not is_gguf:
                file.seek(0)
                return _read_dat(path, file)
        return _read_gguf(path)
    except OSError as error:
        raise ThriftbitError(f"{path}: cannot be read: {error.strerror}") from error


def _unreached(values: FloatArray) -> NDArray[np.bool_]:
    """Return bool (matrices,): the ones without data, or with nothing but zeros."""
    return np.asarray(values.max(axis=1) == 0)


# GGUF


def _read_gguf(path: Path) -> ImportanceMatrix:
    file = read_gguf(path)
    tensors = {info.name: info for info in file.tensors}
    entries = {}
    for info in file.tensors:
        name, found, _ = info.name.rpartition(".in_sum2")
        if not found:
            continue
        counts = tensors.get(f"{name}.counts")
        if counts is None or info.parameters % counts.parameters:
            raise ThriftbitError(f"{path}: the sums for {name} have no counts that fit; make the file again")
        if {info.ggml_type, counts.ggml_type} != {GGMLQuantizationType.F32}:
            raise ThriftbitError(f"{path}: {name} is not stored as F32; make the file again")
        entries[name] = partial(_mean_squares, file, info, counts)
    if not entries:
        raise ThriftbitError(f"{path}: holds no importance data; give a file that llama-imatrix wrote")
    datasets = file.metadata.get("imatrix.datasets", [])
    chunks = file.metadata.get("imatrix.chunk_count", 0)
    return ImportanceMatrix(
        path,
        tuple(datasets) if isinstance(datasets, list) else (),
        int(chunks) if isinstance(chunks, np.integer) and 0 <= chunks <= _MOST_CHUNKS else 0,
        entries,
    )


def _mean_squares(file: GGUFFile, sums: TensorInfo, counts: TensorInfo) -> FloatArray:
    each = _floats(file, counts)[:, np.newaxis]
    squares = _floats(file, sums).reshape(each.size, -1)
    return np.divide(squares, each, out=np.zeros_like(squares), where=each > 0)


def _floats(file: GGUFFile, info: TensorInfo) -> FloatArray:
    return file.read(info).view("<f4").reshape(-1).astype(np.float32)


# .dat: everything little-endian, int32 and float32


def _read_dat(path: Path, file: BinaryIO) -> ImportanceMatrix:
    size_bytes = os.fstat(file.fileno()).st_size

    def integer(least: int = 0, most: int = 2**31 - 1) -> int:
        raw = file.read(4)
        value = struct.unpack("<i", raw)[0] if len(raw) == 4 else -1
        if not least <= value <= most:
            raise ThriftbitError(f"{path}: not an importance file, or a damaged one; give one that llama-imatrix wrote")
        return int(value)

    def text() -> str:
        return file.read(integer(most=NAME_LIMIT_BYTES)).decode("utf-8", "replace")

    entries = {}
    for _ in range(integer(least=1, most=size_bytes // 16)):
        name, calls = text(), integer()
        count = integer(least=1, most=(size_bytes - file.tell() - 4) // 4)
        entries[name] = partial(_dat_values, path, file.tell(), count, calls)
        file.seek(4 * count, os.SEEK_CUR)
    chunks = integer() if file.tell() < size_bytes else 0
    dataset = text() if file.tell() < size_bytes else ""
    return ImportanceMatrix(path, (dataset,) if dataset else (), chunks, entries)


def _dat_values(path: Path, offset_bytes: int, count: int, calls: int) -> FloatArray:
    values = np.fromfile(path, "<f4", count, offset=offset_bytes).astype(np.float32)
    if values.size != count:
        raise ThriftbitError(f"{path}: became shorter while it was read")
    return values / np.float32(calls or 1)
