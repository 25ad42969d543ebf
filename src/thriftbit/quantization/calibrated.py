"""A matrix encoded with calibration data, never worse than without.

The problem: a rounding that lowers the cost on the calibration text may raise it on other text, if the calibration text
was short or hardly used the matrix. The choice: the rounding is judged on tokens that calibration held back. Where it
is not better, the encoding by importance is used instead. So a matrix without data, a format without choices, or
useless data still give a correct encoding, and `Outcome` says which one it was.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from thriftbit.errors import ThriftbitError
from thriftbit.formats import Format, WeightError, format_named
from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.library.artefacts import locked, make_room
from thriftbit.machine.identity import usable_cores
from thriftbit.machine.private_files import private_folder
from thriftbit.progress import Progress, no_progress
from thriftbit.quantization.calibration_data import Calibration
from thriftbit.quantization.engine.memory import Memory, rounding_needs
from thriftbit.quantization.engine.pool import pool_of
from thriftbit.quantization.engine.threads import one_thread
from thriftbit.quantization.plan import Plan
from thriftbit.quantization.rounded import Rounded, rounded_for
from thriftbit.quantization.rounding import can_round, round_matrix
from thriftbit.sources.model import Model

METHOD = 1  # its version: what another one left is not used
TOO_SHORT = "the calibration text is too short to check on"
WORTH_WORKERS = 1 << 24  # weights of matrices that are worth the start of processes


@dataclass(frozen=True)
class Outcome:
    """blocks: uint8 (n, row bytes). cost, plain_cost: of the rounding and of the encoding by importance, on held-back
    tokens (half of it is the expected divergence); None without held-back tokens. note: why the rounding was not used,
    "" if it was."""

    blocks: ByteArray
    cost: float | None
    plain_cost: float | None
    note: str


@one_thread()
def encode_calibrated(rows: FloatArray, format: Format, calibration: Calibration, name: str) -> Outcome:
    """rows: float32 (n, width), all rows of the container's tensor `name`. Raises as `Format.encode` does."""
    if name not in calibration.names:
        return Outcome(format.encode(rows), None, None, "the calibration has no data on it")
    plain = format.encode(rows, calibration.importance(name))
    if not can_round(format):
        return Outcome(plain, None, None, f"{format.name} leaves nothing to choose, or kernels are missing")
    if not calibration.can_check:
        return Outcome(plain, None, None, TOO_SHORT)
    try:
        rounded = round_matrix(rows, format, calibration.curvature(name), plain, spend=True)
    except ThriftbitError as error:
        return Outcome(plain, None, None, str(error))
    check = calibration.check(name)
    cost, plain_cost = (check.cost(rows - format.decode(blocks)) for blocks in (rounded, plain))
    if not cost <= plain_cost:
        return Outcome(plain, cost, plain_cost, "it did not pay on text held back")
    return Outcome(rounded, cost, plain_cost, "")


@dataclass(frozen=True)
class MatrixTask:
    """rows: float32 (n, width), all rows of the container's tensor `name`."""

    rows: FloatArray
    format: str
    calibration: Calibration
    name: str


def round_calibrated(task: MatrixTask) -> Outcome:
    try:
        return encode_calibrated(task.rows, format_named(task.format), task.calibration, task.name)
    except WeightError as error:
        where = f"{task.name}, row {error.row}"
        raise ThriftbitError(f"{where}: weight {error.column} is {error.value}, {error.reason}") from None


def round_all(
    model: Model,
    plan: Plan,
    calibration: Calibration,
    names: Collection[str],
    *,
    workers: int | None = None,
    memory_bytes: int | None = None,
    cache_limit_bytes: int | None = None,
    progress: Progress = no_progress,
) -> Rounded:
    """Round these matrices for the plan, several at once, and keep the blocks in the user's cache. A run that was
    interrupted is gone on with. `Rounded.discard` gives the space back.

    calibration: of this model, with data on all of `names`. Other arguments: as for `calibrate`. Raises ThriftbitError
    for a calibration of another model, for weights that are not finite, and for want of memory or disk.
    """
    calibration.check_belongs(model)
    made = rounded_for(model, plan, calibration, "calibrated", METHOD, names)
    with locked(made.folder, f"rounding {model.source}"):
        made.write(private_folder(made.folder))
        rounded = Rounded(made.folder, made)
        rounded.remove_damaged(model)
        left = [tensor for tensor in model.tensors if tensor.name in names and tensor.name not in rounded]
        make_room(made, plan.weights_bytes(model), limit_bytes=cache_limit_bytes, staying=(calibration.folder,))
        if left:
            if workers is None:
                workers = usable_cores() if sum(tensor.parameters for tensor in left) > WORTH_WORKERS else 1
            doing = f"rounding {model.source}"
            workers = Memory.of(memory_bytes).workers(rounding_needs(left), workers, doing)
            tasks = (MatrixTask(t.load(), plan.formats[t.name], calibration, t.name) for t in left)
            outcomes = pool_of(workers).in_order(round_calibrated, tasks, doing)
            for number, (tensor, outcome) in enumerate(zip(left, outcomes, strict=True)):
                rounded.keep(tensor.name, outcome.blocks, outcome.note)
                progress(tensor.name, (number + 1) / len(left))
    return rounded
