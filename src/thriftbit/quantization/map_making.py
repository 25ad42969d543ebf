"""Make the map of a model: every loss in it, one after the other. Needs the extra `torch`.

First comes every matrix's loss in every format, from its curvature; then what calibrated rounding saves; then the
tensors without curvature, which are measured. Last come some whole plans along the frontier, also measured, because a
sum of small losses has to be compared with the truth.

Rounding is tried on every matrix, in one format: what it saves differs by a factor of five between matrices, and by a
tenth between formats, for which two matrices are enough. Together the rounded matrices are a whole model. It is
measured too, and corrects the predictions for calibrated files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thriftbit.formats import Format, format_named
from thriftbit.formats.format import FloatArray
from thriftbit.network.configuration import configuration_of
from thriftbit.network.network import Network
from thriftbit.network.weights import Weights
from thriftbit.progress import Progress
from thriftbit.quantization.allocation import Budget, find_plan
from thriftbit.quantization.calibration_data import Calibration
from thriftbit.quantization.engine.pool import Pool
from thriftbit.quantization.engine.threads import one_thread
from thriftbit.quantization.journal import Journal
from thriftbit.quantization.map_journal import BY_FORMAT, FINISHED, LOSSES, MEASURED, PLAN, SAVING, sensitivities_in
from thriftbit.quantization.rounded import Rounded
from thriftbit.quantization.rounding import can_round
from thriftbit.quantization.sensitivity import CALIBRATED, PLAIN, Anchor, offered_formats, tried_format
from thriftbit.quantization.sensitivity_curvature import MapTask, in_memory, losses_task, saving_task
from thriftbit.quantization.sensitivity_measured import Losses, Outside, embedding_losses, group_losses, output_losses
from thriftbit.quantization.sensitivity_probe import Listener, with_formats
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import Tensor

COMPARED = (0.4, 0.6)  # matrices that are rounded in every format: as shares of the way through the model
PLANS = (0.1, 0.35, 0.7)  # that are measured: shares of the way from the smallest to the largest below 16 bits
LARGEST_BITS = 8.5
SHARES = {"matrices": 0.25, "rounding": 0.4, "other tensors": 0.15, "whole plans": 0.2}  # of the work, roughly


@dataclass
class MapMaking:
    """windows: int64 (windows, length), text to measure on. journal: receives the results. rounded: gets the rounded
    matrices. pool: computes."""

    model: Model
    calibration: Calibration
    windows: NDArray[np.int64]
    journal: Journal
    rounded: Rounded
    pool: Pool
    progress: Progress

    def make(self, effort: str) -> None:
        with one_thread():
            self._make(effort)

    def _make(self, effort: str) -> None:
        self._losses()
        if effort == CALIBRATED:
            self._savings()
        self._other_tensors()
        self._plans(effort)
        self.journal.once(FINISHED + effort, lambda: self.calibration.tokens)

    @cached_property
    def _matrices(self) -> list[Tensor]:
        names = self.calibration.names
        return [tensor for tensor in self.model.tensors if tensor.name in names and offered_formats(tensor)]

    def _losses(self) -> None:
        left = [tensor for tensor in self._matrices if LOSSES + tensor.name not in self.journal]
        tasks = (MapTask(in_memory(tensor), self.calibration) for tensor in left)
        for number, losses in enumerate(self.pool.in_order(losses_task, tasks, self._doing)):
            self.journal.keep(LOSSES + left[number].name, losses)
            self._tell("matrices", 1 - (len(left) - number - 1) / len(self._matrices))

    def _savings(self) -> None:
        matrices = [tensor for tensor in self._matrices if _tried(tensor) and can_round(format_named(_tried(tensor)))]
        left = [t for t in matrices if SAVING + t.name not in self.journal or t.name not in self.rounded]
        tasks = (MapTask(in_memory(tensor), self.calibration, _tried(tensor)) for tensor in left)
        for number, (factor, blocks) in enumerate(self.pool.in_order(saving_task, tasks, self._doing)):
            self.rounded.keep(left[number].name, blocks)
            self.journal.keep(SAVING + left[number].name, factor)
            self._tell("rounding", 0.8 * (1 - (len(left) - number - 1) / len(matrices)))
        for number, tried in enumerate(sorted({_tried(tensor) for tensor in matrices})):
            alike = [tensor for tensor in matrices if _tried(tensor) == tried]
            compared = [alike[int(share * len(alike))] for share in COMPARED]
            self._tell("rounding", 0.8 + 0.1 * number)
            self.journal.once(BY_FORMAT + tried, partial(self._by_format, compared))

    def _by_format(self, compared: list[Tensor]) -> dict[str, float]:
        """compared: matrices of one shape of rows. Returns for each format, its factor divided by that of the one that
        they were tried in."""
        tried = self.journal.under(SAVING)
        differs = {}
        formats = list(filter(can_round, offered_formats(compared[0])))
        tasks = (MapTask(in_memory(t), self.calibration, format.name) for format in formats for t in compared)
        found = [factor for factor, _ in self.pool.in_order(saving_task, tasks, self._doing)]
        for number, format in enumerate(formats):
            factors = found[number * len(compared) : (number + 1) * len(compared)]
            differs[format.name] = math.exp(
                fmean(math.log(factor / tried[t.name]) for factor, t in zip(factors, compared, strict=True))
            )
        return differs

    def _other_tensors(self) -> None:
        outside = Outside.of(self.model, self.calibration)
        if outside.output:
            self.journal.once(MEASURED + "output", partial(self._output, outside.output))
        self._tell("other tensors", 0.3)
        if outside.embedding:
            self.journal.once(MEASURED + "embedding", partial(self._embedding, outside.embedding))
        for number, (role, group) in enumerate(outside.groups.items()):
            self._tell("other tensors", 0.5 + 0.5 * number / len(outside.groups))
            self.journal.once(MEASURED + role, partial(self._group, group))

    def _output(self, output: Tensor) -> dict[str, dict[str, float]]:
        return {output.name: output_losses(self.model, output, self.calibration, self._listener)}

    def _embedding(self, embedding: Tensor) -> dict[str, dict[str, float]]:
        return {embedding.name: embedding_losses(self.model, embedding, self.calibration, self._listener)}

    def _group(self, group: Sequence[Tensor]) -> Mapping[str, Losses]:
        return group_losses(self.model, group, self.calibration, self._listener)

    def _plans(self, effort: str) -> None:
        known = sensitivities_in(self.journal, self.model)
        for number, share in enumerate(PLANS):
            self._tell("whole plans", number / (len(PLANS) + 1))
            self.journal.once(f"{PLAN}{PLAIN} {share}", partial(self._along_the_frontier, share))
        if effort == CALIBRATED and (matrices := [t for t in self._matrices if t.name in known.savings]):
            self._tell("whole plans", len(PLANS) / (len(PLANS) + 1))
            self.journal.once(f"{PLAN}{CALIBRATED}", partial(self._of_the_rounded, matrices))

    def _along_the_frontier(self, share: float) -> dict[str, Any]:
        known = sensitivities_in(self.journal, self.model)
        free = [tensor for tensor in self.model.tensors if tensor.name in known.losses]
        fewest = sum(min(f.bits_per_weight for f in offered_formats(t)) * t.parameters for t in free)
        most = sum(LARGEST_BITS * t.parameters for t in free)
        kept = sum(32 * t.parameters for t in self.model.tensors if t.name not in known.losses)
        bits = (kept + fewest + share * (most - fewest)) / self.model.parameters
        formats = find_plan(self.model, known, Budget(bits_per_weight=bits)).plan.formats
        weights = with_formats(self.model, {t.name: formats[t.name] for t in free}, self.calibration)
        return self._measured(weights, PLAIN, known.total(formats))

    def _of_the_rounded(self, matrices: list[Tensor]) -> dict[str, Any]:
        known = sensitivities_in(self.journal, self.model)
        formats = {tensor.name: _tried(tensor) for tensor in matrices}
        tensors = (
            replace(t, read=_Rounded(format_named(formats[t.name]), self.rounded, t.name)) if t.name in formats else t
            for t in self.model.tensors
        )
        weights = Weights(replace(self.model, tensors=tuple(tensors)))
        return self._measured(weights, CALIBRATED, known.total(formats, CALIBRATED))

    def _measured(self, weights: Weights, effort: str, predicted: float) -> dict[str, Any]:
        of_windows = self._listener.divergences([(weights, self._listener.pass_layers(weights))])[0]
        mean = float(of_windows.mean())
        error = float(of_windows.std(ddof=1)) / math.sqrt(len(of_windows)) if len(of_windows) > 1 else mean
        return asdict(Anchor(effort, predicted, mean, error / mean if mean > 0 else 0.0))

    @property
    def _doing(self) -> str:
        return f"mapping {self.model.source}"

    @cached_property
    def _listener(self) -> Listener:
        network = Network(configuration_of(self.model), torch.device("cpu"))
        return Listener(network, Weights(self.model), self.windows)

    def _tell(self, part: str, share: float) -> None:
        before = sum(SHARES[name] for name in list(SHARES)[: list(SHARES).index(part)])
        self.progress(part, before + SHARES[part] * share)


@dataclass(frozen=True)
class _Rounded:
    """Reads rows of a matrix that was rounded and stored."""

    format: Format
    rounded: Rounded
    name: str

    def __call__(self, start: int, stop: int) -> FloatArray:
        return self.format.decode(self.rounded.blocks(self.name)[start:stop])


def _tried(tensor: Tensor) -> str:
    return tried_format({format.name for format in offered_formats(tensor)})
