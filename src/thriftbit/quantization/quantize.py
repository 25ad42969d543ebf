"""The loop: read some rows, encode them, write them; until the file is whole.

Rows are independent, so a tensor is never in memory as a whole: pieces of CHUNK_BYTES pass through three stages, each
in a thread of its own, with a few pieces waiting between them. Peak memory depends on neither the model nor its largest
tensor. Encoding, which itself uses all cores, is the slowest stage wherever the disk is not.

What can be known to fail before the first weight is read fails then: the plan, the importance data, the disk space.
"""

from __future__ import annotations

import glob
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from thriftbit.containers.gguf_writer import GGUFWriter
from thriftbit.errors import ThriftbitError
from thriftbit.formats import WeightError, format_named
from thriftbit.formats.format import ByteArray
from thriftbit.quantization.ahead import Ahead
from thriftbit.quantization.importance import Coverage, ImportanceMatrix
from thriftbit.quantization.metadata import file_layout, source_fingerprint
from thriftbit.quantization.plan import Plan, checked_plan
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import FloatArray, Tensor

CHUNK_BYTES = 8 << 20  # of float32 rows

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class QuantizeResult:
    """seconds: of wall-clock time. coverage: which tensors the importance data left out, None if none was given."""

    path: Path
    size_bytes: int
    bits_per_weight: float
    seconds: float
    coverage: Coverage | None


def quantize(
    model: Model,
    plan: Plan,
    output: str | Path,
    *,
    importance: ImportanceMatrix | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> QuantizeResult:
    """Write the model to `output` as a GGUF file, each tensor in the format that the plan gives it

    threads: for encoding, all cores by default. force: replace an existing file. progress: called with a tensor's name,
    the bytes of tensor data written so far and in total. The file appears whole or not at all.
    Raises ThriftbitError for anything about model, plan, importance or output that cannot work, and for weights that
    are not finite, naming tensor and row.
    """
    started, output = time.perf_counter(), Path(output)
    _refuse_source_as_output(model, output)
    plan = checked_plan(model, plan.formats, plan.preset, plan.provenance)
    coverage = importance.check(model) if importance is not None else None
    layout = file_layout(model, plan, importance, source_fingerprint(model))
    with (
        GGUFWriter(output, layout, force=force) as writer,
        Ahead(_read(model)) as rows,
        Ahead(_encode(rows, plan, importance, threads or _cores())) as blocks,
    ):
        for name, pieces in groupby(_reported(blocks, plan.weights_bytes(model), progress), itemgetter(0)):
            writer.write(name, (piece for _, piece in pieces))
    seconds = time.perf_counter() - started
    return QuantizeResult(output, layout.file_size_bytes, plan.bits_per_weight(model), seconds, coverage)


def _read(model: Model) -> Iterator[tuple[Tensor, int, FloatArray]]:
    """-> (tensor, number of the first row, rows), never across two matrices of one tensor: importance is per matrix"""
    for tensor in model.tensors:
        for start, stop in tensor.chunks(CHUNK_BYTES):
            yield tensor, start, tensor.load(start, stop)


def _encode(
    pieces: Iterable[tuple[Tensor, int, FloatArray]], plan: Plan, importance: ImportanceMatrix | None, threads: int
) -> Iterator[tuple[str, ByteArray]]:
    """-> (name of the tensor, encoded rows)"""
    for tensor, own_pieces in groupby(pieces, itemgetter(0)):
        format = format_named(plan.formats[tensor.name])
        weights = importance.for_tensor(tensor) if importance is not None and format.block_size > 1 else None
        for _, start, rows in own_pieces:
            weight = None if weights is None else weights[start // tensor.matrix_rows]
            try:
                blocks = format.encode(rows, weight, threads)
            except WeightError as error:
                where = f"{tensor.name}, row {start + error.row}"
                raise ThriftbitError(f"{where}: weight {error.column} is {error.value}, {error.reason}") from None
            yield tensor.name, blocks


def _reported(
    blocks: Iterable[tuple[str, ByteArray]], total_bytes: int, progress: Progress | None
) -> Iterator[tuple[str, ByteArray]]:
    """-> the same, telling `progress` about each piece once it has been consumed"""
    done_bytes = 0
    for name, piece in blocks:
        yield name, piece
        done_bytes += piece.nbytes
        if progress is not None:
            progress(name, done_bytes, total_bytes)


def _refuse_source_as_output(model: Model, output: Path) -> None:
    source = Path(model.source).expanduser()
    if source.is_dir():
        files = source.glob("*.safetensors")
    else:  # any part of a split GGUF
        files = source.parent.glob(re.sub(r"-\d{5}-of-", "-?????-of-", glob.escape(source.name)))
    if output.exists() and any(file.samefile(output) for file in files):
        raise ThriftbitError(f"{output}: is the model that is being read; choose another name for the result")


def _cores() -> int:
    """-> how many cores this process may use"""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
