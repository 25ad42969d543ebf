"""Rounding layer by layer, so that each layer corrects the errors of the quantized layers before it. Needs `torch`.

The problem: `calibrated` rounding treats every matrix as if all others were unchanged. But after a dozen quantized
layers, a matrix gets different inputs. Part of the difference can be predicted from the inputs themselves, and what can
be predicted can be corrected.

The choice: two streams of hidden states go through the network side by side, the original's and the quantized
model's. A matrix W that gets x in the first and x̂ in the second aims at the original's output W x (asymmetric
calibration, arXiv 2504.02692). A matrix that writes into the residual stream also aims at the error already in the
stream ("lacking"). With r = UPSTREAM · W (x − x̂) + RESIDUAL · lacking, the matrix to round is W + E[r x̂ᵀ] E[x̂
x̂ᵀ]⁻¹, in the curvature of the quantized model's inputs. The factors are below one because a regression on limited
text is partly chance; a ridge shrinks it where tokens are few. Matrices with the same inputs are rounded together,
then the layer is computed again for the next ones. In the first matrices of the feed-forward part all errors count
alike, because its last matrix corrects them.

The result is judged on windows that took no part. Where the encoding by importance comes closer to the target, it
stays.

Left out: matrices without calibration data keep their plain encoding, which the quantized stream includes. Embedding,
output and norms are not changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from thriftbit.containers.temporary_folder import temporary_folder
from thriftbit.errors import ThriftbitError
from thriftbit.formats import format_named
from thriftbit.formats.format import FloatArray
from thriftbit.machine.private_files import private_folder
from thriftbit.network.batches import in_batches
from thriftbit.network.configuration import configuration_of
from thriftbit.network.network import Network
from thriftbit.network.products import short_products
from thriftbit.network.stages import Stage, find_stages, inputs_of, watching
from thriftbit.network.states import StatesOnDisk
from thriftbit.network.stored_parameters import stored_parameters
from thriftbit.network.weights import Weights
from thriftbit.progress import Progress, no_progress
from thriftbit.quantization.calibration import add_squares, symmetric
from thriftbit.quantization.calibration_data import Calibration, held_back
from thriftbit.quantization.curvature import COLUMN_DAMPING, Curvature, damped
from thriftbit.quantization.plan import Plan
from thriftbit.quantization.rounded import Rounded
from thriftbit.quantization.rounding import can_round, round_matrix
from thriftbit.quantization.sensitivity_probe import encoded
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import Tensor

UPSTREAM = 0.8  # share of the earlier layers' error in a matrix's output that is corrected
RESIDUAL = 0.5  # share of the error in the residual stream that is corrected
RIDGE = 2.0  # times columns ÷ tokens, as a share of the diagonal
FINE_BITS = 6.0  # bits per weight from which the loss is so small that products in bfloat16 would hide it
PROBE_TOKENS = 8  # tokens that are sent through a layer to find its stages
# Roles of matrices whose errors are corrected by the last matrix of the same part
MADE_UP_FOR = ("ffn-gate", "ffn-up", "ffn-gate-shared", "ffn-up-shared")


def tune(
    model: Model,
    plan: Plan,
    calibration: Calibration,
    folder: Path,
    *,
    device: torch.device | None = None,
    progress: Progress = no_progress,
) -> Rounded:
    """calibration: of this model. folder: for this model, plan and calibration; gets the blocks of every matrix that
    the calibration has data on, and what is there is not computed again. progress: see `Progress`.

    -> the blocks, for `quantize`
    Raises ThriftbitError for want of memory.
    """
    tuning = _Tuning(model, plan, calibration, Rounded(folder), device or torch.device("cpu"))
    in_batches(lambda tokens: _tune(tuning, folder, tokens, progress), f"tuning {model.source}")
    return tuning.rounded


def _tune(tuning: _Tuning, folder: Path, batch_tokens: int, progress: Progress) -> None:
    layers = tuning.layers_to_go()
    if not layers:
        return
    with torch.no_grad():
        streams = tuning.streams(batch_tokens)
        for index in range(layers):
            with temporary_folder("states", folder) as states:
                for done in tuning.round_layer(index, streams, states):
                    progress("tuning", (index + done) / layers)


@dataclass
class _Stream:
    """Hidden states of some texts, float32 (texts, length, width) each. first: number of the first text. original,
    quantized: what enters the layer in each model. leaving: what leaves it in the original."""

    first: int
    original: torch.Tensor
    quantized: torch.Tensor
    leaving: torch.Tensor


class _Tuning:
    """What stays the same from layer to layer."""

    def __init__(
        self, model: Model, plan: Plan, calibration: Calibration, rounded: Rounded, device: torch.device
    ) -> None:
        private_folder(rounded.folder)
        self.plan, self.calibration, self.rounded = plan, calibration, rounded
        self.network = Network(configuration_of(model), device)
        self.original = Weights(model)
        self.quantized = Weights(replace(model, tensors=tuple(map(self._quantized, model.tensors))))
        self.tensors = {tensor.name: tensor for tensor in model.tensors}
        self.places = stored_parameters(model, self.network)
        self.judged = np.flatnonzero(held_back(len(calibration.windows)))
        self.fine = self._bits_per_weight() >= FINE_BITS

    def _products(self) -> AbstractContextManager[object]:
        """Return the context in which layers are computed."""
        return nullcontext() if self.fine else short_products(self.network.device)

    def layers_to_go(self) -> int:
        """Return the number of layers up to the last one with a matrix that is not rounded yet."""
        prefix = f"{self.network.layers_name}."
        left = [
            int(name.removeprefix(prefix).partition(".")[0])
            for name, place in self.places.items()
            if name.startswith(prefix)
            and place.container_name in self.calibration.names
            and place.container_name not in self.rounded
        ]
        return max(left, default=-1) + 1

    def streams(self, batch_tokens: int) -> list[_Stream]:
        """batch_tokens: how many tokens pass a layer at once."""
        tokens = torch.from_numpy(self.calibration.windows)
        count = max(1, batch_tokens // tokens.shape[1])
        self.network.texts = "probe"
        self.network.embed(self.original, tokens[:1, :PROBE_TOKENS])  # so that `call` knows texts of this length
        streams = []
        for first in range(0, len(tokens), count):
            texts = tokens[first : first + count]
            self.network.texts = ("original", first)
            original = self.network.embed(self.original, texts)
            self.network.texts = ("quantized", first)
            quantized = self.network.embed(self.quantized, texts)
            streams.append(_Stream(first, original, quantized, original))
        return streams

    def round_layer(self, index: int, streams: list[_Stream], states: Path) -> Iterator[float]:
        """Round the layer's matrices and move the streams past the layer. Yield the share that is done now and then."""
        stages, original = self._pass_original(index, streams, states)
        written = list[str]()
        for number, stage in enumerate(stages):
            yield (number + 0.5) / (len(stages) + 1)
            if any(self._container_name(index, name) not in self.rounded for name in stage.names):
                self._round_stage(index, streams, stage, written, original)
            written += stage.writing
        with self.network.layer(index, self.quantized) as layer, self._products():
            for stream in streams:
                self.network.texts = ("quantized", stream.first)
                stream.quantized = self.network.call(index, layer, stream.quantized)
                stream.original = stream.leaving
        yield 1.0

    def _bits_per_weight(self) -> float:
        """Return the mean bits per weight of the matrices that are rounded here."""
        tensors = [self.tensors[name] for name in self.calibration.names]
        bits = sum(
            tensor.parameters * format_named(self.plan.formats[tensor.name]).bits_per_weight for tensor in tensors
        )
        return bits / max(1, sum(tensor.parameters for tensor in tensors))

    def _quantized(self, tensor: Tensor) -> Tensor:
        """Return the tensor as it will be in the file, where that is decided; the original tensor elsewhere."""
        format = format_named(self.plan.formats[tensor.name])

        def read(start: int, stop: int) -> FloatArray:
            if tensor.name in self.rounded:
                return format.decode(self.rounded.blocks(tensor.name)[start:stop])
            if tensor.name in self.calibration.names:
                return tensor.load(start, stop)
            return encoded(tensor, format.name, self.calibration).load(start, stop)

        return replace(tensor, read=read)

    def _pass_original(
        self, index: int, streams: list[_Stream], folder: Path
    ) -> tuple[list[Stage], dict[str, StatesOnDisk]]:
        """Return the layer's stages, what entered each in the original (under the name of its first matrix), and what
        its matrices wrote into the residual stream (under "+" and their names)."""
        with self.network.layer(index, self.original) as layer:
            names = [name for name, _ in layer.named_modules() if self._container_name(index, name)]
            self.network.texts = "probe"
            stages = find_stages(self.network, index, layer, streams[0].original[:1, :PROBE_TOKENS], names)
            kept = {}
            for stage in stages:
                kept[stage.names[0]] = self._states(
                    folder, stage.names[0], self.tensors[self._container_name(index, stage.names[0])].width
                )
                for name in stage.writing:
                    kept[f"+{name}"] = self._states(folder, f"+{name}", self.network.width)
            for stream in streams:

                def note(name: str, inputs: torch.Tensor, output: torch.Tensor, first: int = stream.first) -> None:
                    for key, states in ((name, inputs), (f"+{name}", output)):
                        if key in kept:
                            kept[key].write(first, states.float())

                self.network.texts = ("original", stream.first)
                with watching(layer, names, note), self._products():
                    stream.leaving = self.network.call(index, layer, stream.original)
        return stages, kept

    def _round_stage(
        self,
        index: int,
        streams: list[_Stream],
        stage: Stage,
        written: list[str],
        original: dict[str, StatesOnDisk],
    ) -> None:
        """written: the matrices of the layer that have already written into the residual stream."""
        entrance = stage.names[0]
        sums = [self._sums(index, name, name in stage.writing) for name in stage.names]
        with self.network.layer(index, self.quantized) as layer:
            for stream in streams:
                outputs: dict[str, torch.Tensor] = {}

                def note(name: str, inputs: torch.Tensor, output: torch.Tensor) -> None:
                    outputs[name] = output  # noqa: B023

                self.network.texts = ("quantized", stream.first)
                with watching(layer, written, note), self._products():
                    quantized = inputs_of(self.network, index, layer, stream.quantized, entrance).float()
                lacking = stream.original - stream.quantized
                texts = len(lacking)
                for name in written:
                    lacking += original[f"+{name}"].read(stream.first, texts).to(lacking.device) - outputs[name]
                inputs = original[entrance].read(stream.first, texts).to(lacking.device)
                for matrix in sums:
                    matrix.add(stream.first, inputs, quantized, lacking)
        for matrix in sums:
            self._round(matrix)

    def _sums(self, index: int, name: str, writes: bool) -> _Sums:
        place = self.places[f"{self.network.layers_name}.{index}.{name}.weight"]
        tensor, sizes = self.tensors[place.container_name], self.calibration.sizes(place.container_name)
        weights, device = torch.from_numpy(tensor.load()), self.network.device
        return _Sums(
            tensor,
            weights.to(device),
            torch.from_numpy(place.order).to(device),
            torch.from_numpy(place.columns).to(device),
            torch.from_numpy(sizes / max(float(np.sqrt(np.mean(np.square(sizes)))), 1e-30)).to(device),
            self.judged,
            writes,
            torch.zeros(tensor.width, tensor.width, device=device),
            torch.zeros(tensor.rows if writes else tensor.width, tensor.width, device=device),
        )

    def _round(self, matrix: _Sums) -> None:
        name = matrix.tensor.name
        format, importance = format_named(self.plan.formats[name]), self.calibration.importance(name)
        plain = format.encode(matrix.tensor.load(), importance)
        if not can_round(format):
            self.rounded.keep(name, plain, f"{format.name} leaves nothing to choose, or kernels are missing")
            return
        rows = None if matrix.tensor.role in MADE_UP_FOR else self.calibration.rows(name)
        try:
            curvature = Curvature(symmetric(matrix.columns).cpu().numpy(), rows, matrix.tokens)
            wanted = matrix.wanted(curvature)
            blocks = round_matrix(wanted, format, curvature, format.encode(wanted, importance))
        except ThriftbitError as error:
            self.rounded.keep(name, plain, str(error))
            return
        cost, plain_cost = (matrix.cost(format.decode(each), rows) for each in (blocks, plain))
        if cost <= plain_cost:
            self.rounded.keep(name, blocks)
        else:
            self.rounded.keep(name, plain, "it did not pay on text held back")

    def _container_name(self, index: int, name: str) -> str:
        """Return the tensor that the module's weight is stored in, if calibration has data on it, else ""."""
        place = self.places.get(f"{self.network.layers_name}.{index}.{name}.weight")
        return place.container_name if place and place.container_name in self.calibration.names else ""

    def _states(self, folder: Path, name: str, width: int) -> StatesOnDisk:
        return StatesOnDisk(folder / f"{name}.npy", (*self.calibration.windows.shape, width))


@dataclass
class _Sums:
    """Sums over tokens for one matrix.

    weights: (n, width). order: the module's row for each of the n. sizes: (windows, length), the factor of each token.
    judged: windows that are held back. writes: whether the matrix writes into the residual stream. columns: x̂·x̂ᵀ, of
    which only the lower triangle is valid. drift: (x − x̂)·x̂ᵀ; for a matrix that writes, the whole target r·x̂ᵀ, which
    takes fewer products. inputs, outputs: of the held-back windows, x̂ and the target, both with the same factors.
    """

    tensor: Tensor
    weights: torch.Tensor
    order: torch.Tensor
    along: torch.Tensor
    sizes: torch.Tensor
    judged: NDArray[np.int64]
    writes: bool
    columns: torch.Tensor
    drift: torch.Tensor
    total: float = 0.0
    total_of_squares: float = 0.0
    inputs: list[torch.Tensor] = field(default_factory=list)
    outputs: list[torch.Tensor] = field(default_factory=list)

    def add(self, first: int, original: torch.Tensor, quantized: torch.Tensor, lacking: torch.Tensor) -> None:
        """original, quantized: what enters, (texts, length, width). lacking: (texts, length, the stream's width)."""
        texts = np.arange(first, first + len(original))
        for apart in (False, True):
            chosen = torch.from_numpy(np.flatnonzero(np.isin(texts, self.judged) == apart)).to(original.device)
            sizes = self.sizes[first : first + len(original)][chosen].reshape(-1, 1)
            x, x_hat = (
                (part[chosen].reshape(-1, part.shape[-1]) * sizes)[:, self.along] for part in (original, quantized)
            )
            lacks = (lacking[chosen].reshape(-1, lacking.shape[-1]) * sizes)[:, self.order] if self.writes else 0
            if apart:
                self.inputs.append(x_hat)
                self.outputs.append(x @ self.weights.T + lacks)
                continue
            add_squares(self.columns, x_hat)
            drift = x - x_hat
            if self.writes:
                drift = UPSTREAM * (drift @ self.weights.T) + RESIDUAL * lacks
            self.drift.addmm_(drift.T, x_hat)
            counts = x_hat.square().sum(dim=1, dtype=torch.float64)
            self.total += float(counts.sum())
            self.total_of_squares += float(counts.square().sum())

    @property
    def tokens(self) -> float:
        """Return the number of tokens, as in `Curvature`."""
        return self.total / self.total_of_squares * self.total if self.total_of_squares > 0 else 1.0

    def wanted(self, curvature: Curvature) -> FloatArray:
        """Return float32 (n, width): the matrix that comes closest to the target. curvature: of the quantized model's
        inputs. Raises ThriftbitError for activations that are not finite."""
        aim = self.drift if self.writes else UPSTREAM * self.weights @ self.drift
        if not bool(torch.isfinite(aim).all()):
            raise ThriftbitError("activations that are not finite")
        columns, scale = damped(curvature.columns, COLUMN_DAMPING, RIDGE * len(self.columns) / self.tokens)
        shift = _solved(torch.from_numpy(columns), aim.cpu().T / scale).T
        wanted: FloatArray = (self.weights.cpu() + shift).contiguous().numpy()
        return wanted

    def cost(self, weights: FloatArray, rows: FloatArray | None) -> float:
        """weights: float32 (n, width), decoded. rows: curvature of the outputs, None for the identity. Return the cost
        on the held-back windows; 0 if there are none."""
        total = 0.0
        for inputs, outputs in zip(self.inputs, self.outputs, strict=True):
            errors = (outputs - inputs @ torch.from_numpy(weights).to(inputs.device).T).cpu().numpy()
            total += float(np.sum((errors if rows is None else errors @ rows) * errors, dtype=np.float64))
        return total


def _solved(matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """matrix: float32 (n, n), positive definite. right: (n, m). Return float32 (n, m): matrix⁻¹ · right."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if bool(failed):  # rounding took what makes it definite
        factor = torch.linalg.cholesky(matrix.double())
    return torch.cholesky_solve(right.to(factor.dtype), factor).float()
