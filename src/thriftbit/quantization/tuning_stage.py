"""Rounding the matrices of one stage of a layer: those that get the same inputs. Needs the extra `torch`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from thriftbit.formats.format import FloatArray
from thriftbit.machine.private_files import open_private
from thriftbit.network.stages import Stage
from thriftbit.network.states import States
from thriftbit.network.stored_parameters import StoredParameter
from thriftbit.quantization.calibration_data import Calibration, held_back
from thriftbit.quantization.calibration_tasks import PanelTask, moment_panel
from thriftbit.quantization.engine.pool import Pool
from thriftbit.quantization.moments import panel_starts
from thriftbit.quantization.plan import Plan
from thriftbit.quantization.rounded import Rounded
from thriftbit.quantization.tuning_tasks import (
    DriftTask,
    MatrixTask,
    QuantizedTask,
    drift_panel,
    panel_rows,
    pass_quantized,
    round_tuned,
)
from thriftbit.sources.tensor import Tensor

# Roles of matrices whose errors are corrected by the last matrix of the same part
CORRECTED_LATER = ("ffn-gate", "ffn-up", "ffn-gate-shared", "ffn-up-shared")

Task = TypeVar("Task")


@dataclass(frozen=True)
class Sums:
    """What the matrices of a stage share. original, quantized: x and x̂. lacking: as of `DriftTask`. columns: files with
    the panels of x̂·x̂ᵀ. shares: float32 (tokens,), the factor of each token, 0 for those that do not count. judged:
    numbers of the tokens held back, with their shares. tokens: as of `Curvature`."""

    original: States
    quantized: States
    lacking: States
    columns: tuple[str, ...]
    shares: FloatArray
    judged: NDArray[np.int64]
    judged_shares: FloatArray
    tokens: float


@dataclass(frozen=True)
class StageRounding:
    """parameters, tensors: where each matrix of the stage lies in the container, by the names of linear layers."""

    pool: Pool
    doing: str
    calibration: Calibration
    plan: Plan
    rounded: Rounded
    parameters: Mapping[str, StoredParameter]
    tensors: Mapping[str, Tensor]
    device: str

    def sums(
        self, stage: Stage, inputs: States, quantized: States, lacking: States, passes: Iterable[QuantizedTask]
    ) -> Sums:
        """Move the quantized model's stream up to the stage, and sum what enters it. inputs: x. quantized, lacking:
        places for x̂ and for what the residual stream lacks."""
        sizes, lost, done = list[FloatArray](), list[NDArray[np.bool_]](), 0
        for passed in self.pool.in_order(pass_quantized, passes, self.doing):
            quantized.write(done, passed.inputs)
            lacking.write(done, passed.lacking)
            sizes.append(passed.sizes)
            lost.append(passed.lost)
            done += len(passed.sizes)
        factors = self.calibration.sizes(self.tensors[stage.names[0]].name).ravel()
        factors = factors / max(float(np.sqrt(np.mean(np.square(factors)))), 1e-30)
        factors = np.where(np.concatenate(lost), 0, factors).astype(np.float32)
        windows = self.calibration.windows
        held = np.repeat(held_back(len(windows)), windows.shape[1])
        counts = np.square(np.where(held, 0, factors * np.concatenate(sizes)), dtype=np.float64)
        total, total_of_squares = float(counts.sum()), float(np.square(counts).sum())
        judged = np.flatnonzero(held & (factors > 0))
        shares = np.where(held, 0, factors).astype(np.float32)
        starts = panel_starts(quantized.width)
        columns = (PanelTask(quantized, shares, start, None, self.device) for start in starts)
        return Sums(
            inputs,
            quantized,
            lacking,
            self._saved(moment_panel, columns, quantized.path.parent / "columns"),
            shares,
            judged,
            factors[judged],
            total / total_of_squares * total if total_of_squares > 0 else 1.0,
        )

    def round(self, stage: Stage, sums: Sums) -> None:
        """Round the matrices of the stage that are not rounded yet."""
        place = sums.quantized.path.parent
        shared: tuple[str, ...] = ()
        if len(stage.writing) < len(stage.names):
            tasks = (
                DriftTask(sums.original, sums.quantized, sums.shares, start, device=self.device)
                for start in panel_starts(sums.quantized.width)
            )
            shared = self._saved(drift_panel, tasks, place / "drift")
        left = [name for name in stage.names if self.tensors[name].name not in self.rounded]
        drifts = {
            name: self._saved(drift_panel, self._aim(name, sums), place / f"aim {name}")
            if name in stage.writing
            else shared
            for name in left
        }
        matrices = (self._matrix(name, sums, drifts[name], name in stage.writing) for name in left)
        for name, (blocks, note) in zip(left, self.pool.in_order(round_tuned, matrices, self.doing), strict=True):
            self.rounded.keep(self.tensors[name].name, blocks, note)

    def _aim(self, name: str, sums: Sums) -> Iterator[DriftTask]:
        """Yield the tasks for the target of a matrix that writes into the residual stream."""
        tensor, order = self.tensors[name], self.parameters[name].order
        for rows in panel_rows(tensor.rows):
            weights = tensor.load(rows.start, rows.stop)
            yield DriftTask(
                sums.original,
                sums.quantized,
                sums.shares,
                rows.start,
                weights,
                sums.lacking,
                order[rows],
                self.device,
            )

    def _matrix(self, name: str, sums: Sums, drift: tuple[str, ...], writes: bool) -> MatrixTask:
        tensor = self.tensors[name]
        return MatrixTask(
            tensor.name,
            tensor.load(),
            self.plan.formats[tensor.name],
            self.calibration,
            sums.columns,
            drift,
            sums.tokens,
            tensor.role not in CORRECTED_LATER,
            sums.judged,
            sums.judged_shares,
            sums.original,
            sums.quantized,
            sums.lacking,
            self.parameters[name].order if writes else None,
        )

    def _saved(self, function: Callable[[Task], NDArray[Any]], tasks: Iterable[Task], base: Path) -> tuple[str, ...]:
        """Return the files with the results, in the order of the tasks."""
        paths = []
        for number, values in enumerate(self.pool.in_order(function, tasks, self.doing)):
            paths.append(f"{base}-{number}.npy")
            with open_private(Path(paths[-1]), "wb") as file:
                np.save(file, values)
        return tuple(paths)
