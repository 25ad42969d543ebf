"""A matrix's loss in every format, from its curvature: encode, decode, and compute the cost of the error.

For large matrices, trace(Eᵀ G E A) is estimated. Z has orthogonal columns, scaled so that the mean of Z·Zᵀ is one. Then
the trace is about the sum of (E Z) ∘ (G E A Z), with the same Z for all formats. With as many columns as the matrix
has, it is exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from thriftbit.formats import Format, WeightError, format_named
from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.quantization.calibrated import encode_calibrated
from thriftbit.quantization.calibration_data import Calibration
from thriftbit.quantization.curvature import Curvature
from thriftbit.quantization.sensitivity import offered_formats
from thriftbit.sources.tensor import Tensor

PROBES = 1024  # columns of Z


def losses_by_curvature(tensor: Tensor, calibration: Calibration) -> dict[str, float]:
    """tensor: one that the calibration has data on. Return nats per token for each format offered. Formats that cannot
    hold one of the tensor's weights are left out."""
    rows, importance = tensor.load(), calibration.importance(tensor.name)
    judge = _Judge.of(calibration.curvature(tensor.name))
    losses = {}
    for format in offered_formats(tensor):
        try:
            decoded = format.decode(format.encode(rows, importance))
        except WeightError:
            continue
        losses[format.name] = max(judge.cost(rows - decoded) / 2, 0.0)
    return losses


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
