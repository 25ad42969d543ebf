"""The tasks of tuning: pure functions of their inputs, each for one batch of text, one piece of a sum, or one matrix.

Batches are those of `calibration_tasks.py`. Needs the extra `torch`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from thriftbit.errors import ThriftbitError
from thriftbit.formats import format_named
from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.network.products import short_products
from thriftbit.network.shipped import Blueprint, Stored, layer_of
from thriftbit.network.stages import inputs_of, watching
from thriftbit.network.states import Halves, States
from thriftbit.quantization.calibration_data import Calibration
from thriftbit.quantization.calibration_tasks import CHUNK_TOKENS, Batch
from thriftbit.quantization.curvature import COLUMN_DAMPING, Curvature, damped
from thriftbit.quantization.moments import PANEL, from_panels, panel_starts
from thriftbit.quantization.rounding import can_round, round_matrix

UPSTREAM = 0.8  # share of the earlier layers' error in a matrix's output that is corrected
RESIDUAL = 0.5  # share of the error in the residual stream that is corrected
RIDGE = 2.0  # times columns ÷ tokens, as a share of the diagonal

Vectors = torch.Tensor | Halves


@dataclass(frozen=True)
class PassTask:
    """A layer of one of the two models, and a batch. stream: "original" or "quantized". weights: the layer's; of two
    with the same name, the later counts. short: whether products are of bfloat16, and vectors are kept in half
    precision."""

    blueprint: Blueprint
    layer: int
    stream: str
    weights: tuple[Stored, ...]
    batch: Batch
    entering: States
    short: bool

    def texts(self) -> tuple[str, int]:
        return self.stream, self.batch.number

    def products(self, device: torch.device) -> AbstractContextManager[object]:
        return short_products(device) if self.short else nullcontext()

    def kept(self, vectors: torch.Tensor) -> Vectors:
        flat = vectors.flatten(0, -2).float()
        return Halves.of(flat) if self.short else flat.cpu().clone()


@torch.no_grad()
def pass_layer(task: PassTask) -> torch.Tensor:
    """Return what leaves the layer, float32 (tokens, width)."""
    with layer_of(task.blueprint, task.layer, task.weights) as (network, layer), task.products(network.device):
        network.texts = task.texts()
        leaving = network.call(task.layer, layer, task.batch.states(task.entering, network.device))
    return leaving.flatten(0, 1).float().cpu()


@dataclass(frozen=True)
class OriginalTask(PassTask):
    """inputs: names of linear layers whose inputs are wanted, with the order of columns in the container. writing: of
    those whose outputs are wanted."""

    inputs: dict[str, NDArray[np.int64]]
    writing: tuple[str, ...]


@dataclass(frozen=True)
class Original:
    """leaving: float32 (tokens, width). inputs, outputs: vectors by the names of linear layers."""

    leaving: torch.Tensor
    inputs: dict[str, Vectors]
    outputs: dict[str, Vectors]


@torch.no_grad()
def pass_original(task: OriginalTask) -> Original:
    inputs: dict[str, Vectors] = {}
    outputs: dict[str, Vectors] = {}

    def note(name: str, entering: torch.Tensor, leaving: torch.Tensor) -> None:
        if name in task.inputs:
            order = torch.from_numpy(task.inputs[name]).to(entering.device)
            inputs[name] = task.kept(_finite(entering[..., order])[0])
        if name in task.writing:
            outputs[name] = task.kept(leaving)

    with layer_of(task.blueprint, task.layer, task.weights) as (network, layer), task.products(network.device):
        network.texts = task.texts()
        with watching(layer, {*task.inputs, *task.writing}, note):
            leaving = network.call(task.layer, layer, task.batch.states(task.entering, network.device))
    return Original(leaving.flatten(0, 1).float().cpu(), inputs, outputs)


@dataclass(frozen=True)
class QuantizedTask(PassTask):
    """entrance: the linear layer whose inputs are wanted. columns: their order in the container. original: what enters
    the layer in the original. written: what the matrices before it wrote into the residual stream in the original, by
    their names."""

    entrance: str
    columns: NDArray[np.int64]
    original: States
    written: dict[str, States]


@dataclass(frozen=True)
class Quantized:
    """inputs: x̂ of all tokens, 0 where it is not finite. sizes: float32 (tokens,), |x̂|. lost: bool (tokens,), where it
    is not finite. lacking: what the residual stream lacks against the original's."""

    inputs: Vectors
    sizes: FloatArray
    lost: NDArray[np.bool_]
    lacking: Vectors


@torch.no_grad()
def pass_quantized(task: QuantizedTask) -> Quantized:
    outputs: dict[str, torch.Tensor] = {}

    def note(name: str, inputs: torch.Tensor, output: torch.Tensor) -> None:
        outputs[name] = output

    batch = task.batch
    with layer_of(task.blueprint, task.layer, task.weights) as (network, layer), task.products(network.device):
        network.texts = task.texts()
        hidden = batch.states(task.entering, network.device)
        with watching(layer, list(task.written), note):
            inputs = inputs_of(network, task.layer, layer, hidden, task.entrance).float()
        lacking = batch.states(task.original, network.device) - hidden
        for name, states in task.written.items():
            lacking += batch.states(states, network.device) - outputs[name].float()
    inputs, lost = _finite(inputs[..., torch.from_numpy(task.columns).to(inputs.device)])
    lacking, also_lost = _finite(lacking)
    sizes = inputs.norm(dim=-1).flatten()
    lost = (lost | also_lost).flatten()
    return Quantized(task.kept(inputs), sizes.cpu().numpy(), lost.cpu().numpy(), task.kept(lacking))


def _finite(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the vectors with 0 in place of those that are not finite, and which those are."""
    lost = ~torch.isfinite(vectors).all(dim=-1)
    return torch.where(lost[..., None], 0, vectors), lost


@dataclass(frozen=True)
class DriftTask:
    """Rows of the sum over tokens of share²·r·x̂ᵀ. original, quantized: x and x̂. shares: float32 (tokens,), 0 for tokens
    that do not count.

    For matrices that write into the residual stream, r is the target: UPSTREAM·W (x − x̂) + RESIDUAL·lacking, and the
    rows are those of the matrix that `weights`, float32 (rows, width), and `order`, (rows,), are of. For all others, r
    is x − x̂ itself, and the rows are PANEL of them from `start` on."""

    original: States
    quantized: States
    shares: FloatArray
    start: int
    weights: FloatArray | None = None
    lacking: States | None = None
    order: NDArray[np.int64] | None = None
    device: str = "cpu"


@torch.no_grad()
def drift_panel(task: DriftTask) -> FloatArray:
    """Return float32 (rows, width)."""
    weights = None if task.weights is None else torch.from_numpy(task.weights).to(task.device)
    stop = min(task.start + PANEL, task.quantized.width)
    rows = stop - task.start if weights is None else len(weights)
    drift = torch.zeros(rows, task.quantized.width, device=task.device)
    for first in range(0, len(task.shares), CHUNK_TOKENS):
        shares = task.shares[first : first + CHUNK_TOKENS]
        chosen = torch.from_numpy(np.flatnonzero(shares))
        if not len(chosen):
            continue
        share = torch.from_numpy(shares)[chosen, None].to(task.device)
        x, x_hat = (
            states.read(first, len(shares))[chosen].to(task.device) * share
            for states in (task.original, task.quantized)
        )
        r = x - x_hat
        if weights is None:
            r = r[:, task.start : stop]
        else:
            assert task.lacking is not None and task.order is not None
            lacks = task.lacking.read(first, len(shares))[chosen][:, torch.from_numpy(task.order)].to(task.device)
            r = UPSTREAM * (r @ weights.T) + RESIDUAL * (lacks * share)
        drift.addmm_(r.T, x_hat)
    return drift.cpu().numpy()


@dataclass(frozen=True)
class MatrixTask:
    """A matrix to be rounded. weights: float32 (n, width). columns, drift: files with the panels of the sums, in order.
    tokens: as in `Curvature`. with_rows: whether gradients count. judged: numbers of the tokens held back, with their
    shares. order: as in `DriftTask`; None for a matrix that does not write into the residual stream."""

    name: str
    weights: FloatArray
    format: str
    calibration: Calibration
    columns: tuple[str, ...]
    drift: tuple[str, ...]
    tokens: float
    with_rows: bool
    judged: NDArray[np.int64]
    shares: FloatArray
    original: States
    quantized: States
    lacking: States
    order: NDArray[np.int64] | None


def round_tuned(task: MatrixTask) -> tuple[ByteArray, str]:
    """Return the blocks, and why the matrix was not rounded as a whole, "" if it was."""
    format, importance = format_named(task.format), task.calibration.importance(task.name)
    plain = format.encode(task.weights, importance, 1)
    if not can_round(format):
        return plain, f"{format.name} leaves nothing to choose, or kernels are missing"
    rows = task.calibration.rows(task.name) if task.with_rows else None
    try:
        columns = from_panels((np.load(path) for path in task.columns), None, task.weights.shape[1])
        curvature = Curvature(columns, None if rows is None else rows.copy(), task.tokens)  # rows judge as well
        wanted = _wanted(task, curvature)
        blocks = round_matrix(wanted, format, curvature, format.encode(wanted, importance, 1), spend=True)
    except ThriftbitError as error:
        return plain, str(error)
    cost, plain_cost = _costs(task, [format.decode(blocks), format.decode(plain)], rows)
    return (blocks, "") if cost <= plain_cost else (plain, "it did not pay on text held back")


def _wanted(task: MatrixTask, curvature: Curvature) -> FloatArray:
    """Return float32 (n, width): the matrix that comes closest to the target. curvature: of the quantized model's
    inputs. Raises ThriftbitError for activations that are not finite."""
    weights = torch.from_numpy(task.weights)
    drift = torch.from_numpy(np.concatenate([np.load(path) for path in task.drift]))
    aim = drift if task.order is not None else UPSTREAM * weights @ drift
    if not bool(torch.isfinite(aim).all()):
        raise ThriftbitError("activations that are not finite")
    columns, scale = damped(curvature.columns, COLUMN_DAMPING, RIDGE * len(curvature.columns) / task.tokens)
    shift = _solved(torch.from_numpy(columns), aim.T / scale).T
    wanted: FloatArray = (weights + shift).contiguous().numpy()
    return wanted


def _costs(task: MatrixTask, candidates: list[FloatArray], rows: FloatArray | None) -> list[float]:
    """candidates: float32 (n, width), decoded. rows: curvature of the outputs, None for the identity. Return the cost
    of each on the tokens held back."""
    totals = [0.0 for _ in candidates]
    weights = torch.from_numpy(task.weights)
    for first in range(0, len(task.judged), CHUNK_TOKENS):
        numbers = task.judged[first : first + CHUNK_TOKENS]
        share = torch.from_numpy(task.shares[first : first + CHUNK_TOKENS])[:, None]
        x, x_hat = (states.rows(numbers) * share for states in (task.original, task.quantized))
        target = x @ weights.T
        if task.order is not None:
            target += task.lacking.rows(numbers)[:, torch.from_numpy(task.order)] * share
        for number, candidate in enumerate(candidates):
            errors = (target - x_hat @ torch.from_numpy(candidate).T).numpy()
            weighted = errors if rows is None else errors @ rows
            totals[number] += float(np.sum(weighted * errors, dtype=np.float64))
    return totals


def _solved(matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """matrix: float32 (n, n), positive definite. right: (n, m). Return float32 (n, m): matrix⁻¹ · right."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if bool(failed):  # rounding took what makes it definite
        factor = torch.linalg.cholesky(matrix.double())
    return torch.cholesky_solve(right.to(factor.dtype), factor).float()


def panel_rows(n: int) -> list[slice]:
    """Return the rows of a matrix in pieces of PANEL."""
    return [slice(start, min(start + PANEL, n)) for start in panel_starts(n)]
