"""The loop: read some rows, encode them, write them, until the file is whole.

Rows are independent, so a tensor is never in memory as a whole. Pieces of CHUNK_BYTES pass through three stages, each
in a thread of its own, with a few pieces waiting in between. Peak memory depends neither on the model nor on its
largest tensor. Encoding uses all cores and is the slowest stage, unless the disk is slow.

Whatever can be known to fail before the first weight is read fails then: the plan, the importance data, the disk space.
"""

from __future__ import annotations

import glob
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np

from thriftbit.errors import ThriftbitError, UsageError
from thriftbit.formats import WeightError, format_named
from thriftbit.formats.format import ByteArray
from thriftbit.machine.identity import usable_cores
from thriftbit.progress import Progress, no_progress, part_of
from thriftbit.quantization.ahead import Ahead
from thriftbit.quantization.calibrated import round_all
from thriftbit.quantization.calibration_data import Calibration
from thriftbit.quantization.container import Container, Making
from thriftbit.quantization.gguf_file import gguf_file
from thriftbit.quantization.importance import Coverage, ImportanceMatrix
from thriftbit.quantization.importance_needed import check_importance
from thriftbit.quantization.plan import Plan, checked_plan
from thriftbit.quantization.rounded import Rounded
from thriftbit.quantization.same import CarriedOver, with_scales_apart
from thriftbit.quantization.self_check import LogitCheck, TokenCheck, check_tokens
from thriftbit.quantization.vanished import count_vanished
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import FloatArray, Tensor

CHUNK_BYTES = 8 << 20  # of float32 rows
ROUNDING_SHARE = 0.9  # of the work with a calibration, roughly


@dataclass(frozen=True)
class QuantizeResult:
    """seconds: of wall-clock time. coverage: what importance data or calibration left out, None without either.
    kept_plain: matrices that were rounded block by block although there was a calibration -> why. vanished: tensors
    with weights that became zero because they are too small for their format -> the share of them. carried_over: how
    many matrices hold exactly the weights of the source, which were small already. check, logit_check: what comparing
    the file's tokenizer, weights and logits with the original's showed; None if it was not asked for. logit_check is
    also None for a family without a table, which `measurement/proof.py` judges."""

    path: Path
    size_bytes: int
    bits_per_weight: float
    seconds: float
    coverage: Coverage | None
    kept_plain: Mapping[str, str] = field(default_factory=dict)
    carried_over: int = 0
    check: TokenCheck | None = None
    logit_check: LogitCheck | None = None
    vanished: Mapping[str, float] = field(default_factory=dict)


def quantize(
    model: Model,
    plan: Plan,
    output: str | Path,
    *,
    importance: ImportanceMatrix | None = None,
    calibration: Calibration | None = None,
    rounded: Rounded | None = None,
    without_importance: bool = False,
    threads: int | None = None,
    workers: int | None = None,
    memory_bytes: int | None = None,
    force: bool = False,
    check: bool = False,
    container: Container = gguf_file,
    progress: Progress = no_progress,
) -> QuantizeResult:
    """Write the model to `output`, each tensor in the format that the plan gives it

    importance or calibration: what matters of the weights, one of the two at most; with a calibration, matrices are
    rounded as a whole first, by as many processes as `workers` says, inside `memory_bytes` (see `calibrate`), and wait
    in the user's cache until the file is written. rounded: matrices that were rounded before, with this model, plan and
    calibration, and are taken as they are. without_importance: accept that a file of very few bits is poor without
    either. threads: for encoding, all cores by default. force: replace an existing file.
    check: compare the file with the original at the end, token ids and, with the extra `torch`, weights and logits;
    takes seconds, at most about a minute.
    container: what the file is, GGUF by default. progress: told the name of each tensor, and the fraction of all work
    that is done. The file appears whole or not at all.
    Raises NeedsImportanceError for formats that need importance data where there is none, and ThriftbitError for
    anything about model, plan, importance or output that cannot work, and for weights that are not finite, naming
    tensor and row.
    """
    started, output = time.perf_counter(), Path(output)
    if importance is not None and calibration is not None:
        raise UsageError("importance data and a calibration both say what matters; give one of them")
    _refuse_source_as_output(model, output)
    plan = checked_plan(model, plan.formats, plan.preset, plan.provenance)
    coverage = importance.check(model) if importance is not None else _coverage(calibration)
    check_importance(model, plan, coverage, calibration, insist=without_importance)
    making = Making(model.fingerprint, _effort(calibration, rounded), importance, calibration)
    stored, stored_plan = with_scales_apart(model, plan)
    same = CarriedOver(stored, stored_plan)
    if calibration is not None:
        calibration.check_belongs(model)
    if rounded is not None:
        rounded.check_belongs(model, plan)
    with container(output, model, plan, making, force=force) as writer:
        kept, written = rounded, progress
        if calibration is not None and rounded is None:
            rounding, written = part_of(progress, 0, ROUNDING_SHARE), part_of(progress, ROUNDING_SHARE, 1)
            names = [name for name in calibration.names if name not in same]
            kept = round_all(
                model, plan, calibration, names, workers=workers, memory_bytes=memory_bytes, progress=rounding
            )
        encoding = _Encoding(
            stored_plan, same, importance, calibration, kept, threads or usable_cores(), _not_rounded(calibration)
        )
        with Ahead(_read(stored, encoding)) as rows, Ahead(_encode(rows, encoding)) as blocks:
            for name, pieces in groupby(_reported(blocks, stored_plan.weights_bytes(stored), written), itemgetter(0)):
                writer.write(name, (piece for _, piece in pieces))
    if kept is not None and kept is not rounded:
        kept.discard()
    seconds = time.perf_counter() - started
    return QuantizeResult(
        writer.path,
        writer.size_bytes,
        plan.bits_per_weight(model),
        seconds,
        coverage,
        encoding.kept_plain,
        len(same),
        check_tokens(model, writer.path) if check else None,
        _check_logits(model, writer.path) if check and model.conversion is None else None,
        encoding.vanished,
    )


def _check_logits(model: Model, path: Path) -> LogitCheck:
    try:
        from thriftbit.quantization.logit_check import check_logits
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "transformers"):
            raise
        return LogitCheck(skipped=f'Logits not checked: that needs {error.name}; pip install "thriftbit[torch]"')
    return check_logits(model, path)


@dataclass(frozen=True)
class _Encoding:
    """How the rows of each tensor become blocks."""

    plan: Plan
    same: CarriedOver
    importance: ImportanceMatrix | None
    calibration: Calibration | None
    rounded: Rounded | None
    threads: int
    kept_plain: dict[str, str]
    vanished: dict[str, float] = field(default_factory=dict)

    def is_done(self, tensor: Tensor) -> bool:
        """Whether the tensor was rounded before, as a whole."""
        return self.rounded is not None and tensor.name in self.rounded and tensor.name not in self.same

    def encode(self, tensor: Tensor, start: int, rows: FloatArray) -> ByteArray:
        if tensor.name in self.same:
            return self.same.blocks(tensor, start, rows)
        if self.rounded is not None and tensor.name in self.rounded:
            if note := self.rounded.note(tensor.name):
                self.kept_plain[tensor.name] = note
            return self.rounded.blocks(tensor.name)
        format = format_named(self.plan.formats[tensor.name])
        weights = None if format.block_size == 1 else self._importance(tensor)
        return format.encode(rows, None if weights is None else weights[start // tensor.matrix_rows], self.threads)

    def look_for_vanished(self, tensor: Tensor, rows: FloatArray, blocks: ByteArray) -> None:
        """Notes what share of the tensor became zero, if any did. blocks: the encoded rows."""
        if tensor.name in self.same or self.is_done(tensor):
            return
        if count := count_vanished(format_named(self.plan.formats[tensor.name]), rows, blocks):
            self.vanished[tensor.name] = self.vanished.get(tensor.name, 0.0) + count / tensor.parameters

    def _importance(self, tensor: Tensor) -> FloatArray | None:
        """Return float32 (matrices, width), the importance for a tensor that is encoded block by block."""
        if self.calibration is not None:
            return self.calibration.importance(tensor.name) if tensor.name in self.calibration.experts else None
        return self.importance.for_tensor(tensor) if self.importance is not None else None


def _read(model: Model, encoding: _Encoding) -> Iterator[tuple[Tensor, int, FloatArray]]:
    """Yield (tensor, number of the first row, rows). A piece never crosses two matrices of a tensor: importance is per
    matrix."""
    for tensor in model.tensors:
        if encoding.is_done(tensor):
            yield tensor, 0, np.empty((0, tensor.width), np.float32)
            continue
        for start, stop in tensor.chunks(CHUNK_BYTES):
            yield tensor, start, tensor.load(start, stop)


def _encode(pieces: Iterable[tuple[Tensor, int, FloatArray]], encoding: _Encoding) -> Iterator[tuple[str, ByteArray]]:
    """Yield (name of the tensor, encoded rows)."""
    for tensor, start, rows in pieces:
        try:
            blocks = encoding.encode(tensor, start, rows)
            encoding.look_for_vanished(tensor, rows, blocks)
            yield tensor.name, blocks
        except WeightError as error:
            where = f"{tensor.name}, row {start + error.row}"
            raise ThriftbitError(f"{where}: weight {error.column} is {error.value}, {error.reason}") from None


def _reported(
    blocks: Iterable[tuple[str, ByteArray]], total_bytes: int, progress: Progress
) -> Iterator[tuple[str, ByteArray]]:
    """Yield the same pieces, and report each to `progress` after it was consumed."""
    done_bytes = 0
    for name, piece in blocks:
        yield name, piece
        done_bytes += piece.nbytes
        progress(name, done_bytes / total_bytes)


def _refuse_source_as_output(model: Model, output: Path) -> None:
    source = Path(model.source).expanduser()
    if source.is_dir():
        files = source.glob("*.safetensors")
    else:  # any part of a split GGUF
        files = source.parent.glob(re.sub(r"-\d{5}-of-", "-?????-of-", glob.escape(source.name)))
    if output.exists() and any(file.samefile(output) for file in files):
        raise ThriftbitError(f"{output}: is the model that is being read; choose another name for the result")


def _coverage(calibration: Calibration | None) -> Coverage | None:
    if calibration is None:
        return None
    unheard = {name: len(calibration.unheard(name)) for name in sorted(calibration.experts)}
    return Coverage((), {name: count for name, count in unheard.items() if count})


def _not_rounded(calibration: Calibration | None) -> dict[str, str]:
    """Return the matrices that are not rounded as a whole in any case, and why."""
    if calibration is None:
        return {}
    notes = dict.fromkeys(calibration.missing, "the calibration has no data on it")
    for name in sorted(calibration.experts):
        notes[name] = "of experts the calibration knows what matters, and no more"
        if unheard := calibration.unheard(name):
            numbers = ", ".join(map(str, unheard))
            notes[name] += f"; what matters to all counts for those that few tokens of the text reached: {numbers}"
    return notes


def _effort(calibration: Calibration | None, rounded: Rounded | None) -> str:
    return "tuned" if rounded is not None else "calibrated" if calibration is not None else "plain"
