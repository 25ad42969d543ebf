"""A matrix's loss in every format, from its curvature: encode, decode, and compute the cost of the error.

For large matrices, trace(Eᵀ G E A) is estimated. Z has orthogonal columns, scaled so that the mean of Z·Zᵀ is one. Then
the trace is about the sum of (E Z) ∘ (G E A Z), with the same Z for all formats. With as many columns as the matrix
has, it is exact.

The encoders of codebook formats are slow, so they encode some of the rows only. Whatever these rows lose in another
format, and the whole matrix with it, says how much the rows stand for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from thriftbit.formats import Format, WeightError, format_named
from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.formats.vector_grid import VectorGrid
from thriftbit.quantization.calibrated import encode_calibrated
from thriftbit.quantization.calibration_data import Calibration
from thriftbit.quantization.curvature import Curvature
from thriftbit.quantization.sensitivity import offered_formats
from thriftbit.sources.tensor import Tensor

PROBES = 1024  # columns of Z
FEWEST_ROWS, SHARE_OF_ROWS = 256, 8  # that codebook formats encode: one in so many, and no fewer
COMPARED = "Q2_K"  # with what codebook formats lose in some rows


def losses_by_curvature(tensor: Tensor, calibration: Calibration) -> dict[str, float]:
    """tensor: one that the calibration has data on. Return nats per token for each format offered. Formats that cannot
    hold one of the tensor's weights are left out."""
    rows, importance = tensor.load(), calibration.importance(tensor.name)
    judge = _Judge.of(calibration.curvature(tensor.name))
    some = _some_rows(len(rows))
    offered = offered_formats(tensor)
    losses, of_some = dict[str, float](), 0.0
    for format in sorted(offered, key=lambda format: isinstance(format.grid, VectorGrid)):
        sampled = isinstance(format.grid, VectorGrid) and len(some) < len(rows) and COMPARED in losses
        try:
            errors = _errors(format, rows[some] if sampled else rows, importance)
        except WeightError:
            continue
        if sampled:
            losses[format.name] = losses[COMPARED] * judge.cost_of_rows(errors, some) / of_some if of_some > 0 else 0.0
            continue
        losses[format.name] = max(judge.cost(errors) / 2, 0.0)
        if format.name == COMPARED:
            of_some = judge.cost_of_rows(errors[some], some)
    return {format.name: losses[format.name] for format in offered if format.name in losses}


def _some_rows(count: int) -> NDArray[np.int64]:
    """Return the numbers of the rows that codebook formats encode."""
    fewest = min(count, max(FEWEST_ROWS, count // SHARE_OF_ROWS))
    return np.linspace(0, count - 1, fewest).round().astype(np.int64)


def _errors(format: Format, rows: FloatArray, importance: FloatArray) -> FloatArray:
    errors: FloatArray = rows - format.decode(format.encode(rows, importance))
    return errors


def saving(tensor: Tensor, format: Format, calibration: Calibration) -> tuple[float, ByteArray]:
    """Return the factor by which calibrated rounding changes the loss, on held-back tokens, and the rounded blocks."""
    outcome = encode_calibrated(tensor.load(), format, calibration, tensor.name)
    if outcome.note or not outcome.cost or not outcome.plain_cost:
        return 1.0, outcome.blocks
    return min(outcome.cost / outcome.plain_cost, 1.0), outcome.blocks


@dataclass(frozen=True)
class MapTask:
    """tensor: with rows in memory, so that it can be sent. format: the one to round in, "" for losses."""

    tensor: Tensor
    calibration: Calibration
    format: str = ""


def in_memory(tensor: Tensor) -> Tensor:
    """Return the tensor with its rows read."""
    return replace(tensor, read=_Rows(tensor.load()), undecoded=None)


@dataclass(frozen=True)
class _Rows:
    rows: FloatArray

    def __call__(self, start: int, stop: int) -> FloatArray:
        return self.rows[start:stop].copy()


def losses_task(task: MapTask) -> dict[str, float]:
    return losses_by_curvature(task.tensor, task.calibration)


def saving_task(task: MapTask) -> tuple[float, ByteArray]:
    return saving(task.tensor, format_named(task.format), task.calibration)


@dataclass(frozen=True)
class _Judge:
    """columns: Z, float32 (width, probes), None for the identity. met: A Z. rows: G. Where G is unknown, it counts as a
    multiple of the identity with the trace of A."""

    columns: FloatArray | None
    met: FloatArray
    rows: FloatArray | None

    @classmethod
    def of(cls, curvature: Curvature) -> _Judge:
        width = len(curvature.columns)
        if width <= PROBES:
            return cls(None, curvature.columns, curvature.rows)
        normal = np.random.default_rng(0).standard_normal((width, PROBES), np.float32)
        columns = np.linalg.qr(normal)[0] * np.float32(np.sqrt(width / PROBES))
        return cls(columns, curvature.columns @ columns, curvature.rows)

    def cost_of_rows(self, errors: FloatArray, chosen: NDArray[np.int64]) -> float:
        """errors: float32 (rows chosen, width). chosen: their numbers. Return their part of the cost, as if rows had
        nothing to do with one another."""
        by_rows = errors if self.columns is None else errors @ self.columns
        each = np.einsum("ij,ij->i", errors @ self.met, by_rows, dtype=np.float64)
        return float(each.sum() if self.rows is None else each @ self.rows.diagonal()[chosen])

    def cost(self, errors: FloatArray) -> float:
        """errors: float32 (n, width). Return trace(Eᵀ G E A)."""
        by_columns = errors @ self.met
        by_rows = errors if self.columns is None else errors @ self.columns
        if self.rows is not None:
            by_columns = self.rows @ by_columns
            return float(np.einsum("ij,ij->", by_columns, by_rows, dtype=np.float64))
        trace = (
            float(np.trace(self.met)) if self.columns is None else float(np.einsum("ij,ij->", self.columns, self.met))
        )
        return trace / len(errors) * float(np.einsum("ij,ij->", by_columns, by_rows, dtype=np.float64))
