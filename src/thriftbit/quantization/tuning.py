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

All of it is tasks (`tuning_tasks.py`), with results in one order. Both streams are kept after every layer, so an
interrupted run goes on with the layer it was in, and with the matrices of it that are not rounded yet.

Left out: matrices without calibration data keep their plain encoding, which the quantized stream includes. Embedding,
output and norms are not changed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from thriftbit.formats import format_named
from thriftbit.formats.format import FloatArray
from thriftbit.library.artefacts import full_disk_explained, locked, make_room, read_made_of
from thriftbit.machine.private_files import private_folder
from thriftbit.network.configuration import configuration_of
from thriftbit.network.network import Network
from thriftbit.network.products import are_short, short_products
from thriftbit.network.shipped import Blueprint, Stored, StoredWeights, store_layer
from thriftbit.network.stages import Stage, find_stages
from thriftbit.network.states import Growing, States
from thriftbit.network.stored_parameters import StoredParameter, stored_parameters
from thriftbit.network.weights import Weights
from thriftbit.progress import Progress, no_progress
from thriftbit.quantization.ahead import Ahead
from thriftbit.quantization.calibration_data import Calibration, held_back
from thriftbit.quantization.calibration_tasks import Batch, batches_of
from thriftbit.quantization.engine.memory import Memory, tuning_needs
from thriftbit.quantization.engine.pool import Pool, pool_of
from thriftbit.quantization.plan import Plan
from thriftbit.quantization.rounded import Rounded, rounded_for
from thriftbit.quantization.sensitivity_probe import encoded
from thriftbit.quantization.tuning_stage import StageRounding
from thriftbit.quantization.tuning_tasks import OriginalTask, PassTask, QuantizedTask, pass_layer, pass_original
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import Tensor

METHOD = 4  # its version: what another one left is not gone on with
FINE_BITS = 6.0  # bits per weight from which the loss is so small that products in bfloat16 would hide it
PROBE_TOKENS = 8  # tokens that are sent through a layer to find its stages
TOO_SHORT = "the calibration text is too short to check on"
_UNFINISHED = "unfinished"  # the folder within the rounded matrices' for what only their making needs


def tune_in(
    model: Model,
    plan: Plan,
    calibration: Calibration,
    folder: Path,
    *,
    workers: int = 1,
    memory_bytes: int | None = None,
    cache_limit_bytes: int | None = None,
    device: torch.device | None = None,
    progress: Progress = no_progress,
) -> Rounded:
    """calibration: of this model. folder: gets the blocks of every matrix that the calibration has data on; what is
    there of the same model, plan and calibration is not computed again, anything else is replaced. Other arguments: as
    for `calibrate_windows`. The same bytes for any number of workers and any memory, on one kind of processor.

    Returns the blocks, for `quantize`
    Raises ThriftbitError for a calibration of another model, and for want of memory or disk."""
    calibration.check_belongs(model)
    made = rounded_for(model, plan, calibration, "tuned", METHOD)
    with locked(folder, f"tuning {model.source}"):
        if folder.exists() and read_made_of(folder) != made:
            shutil.rmtree(folder)
        made.write(private_folder(folder))
        rounded = Rounded(folder, made)
        rounded.remove_damaged(model)
        if all(name in rounded for name in calibration.names):
            return rounded
        if not calibration.can_check:
            _keep_plain(model, plan, calibration, rounded)
            return rounded
        needs = tuning_needs(model, calibration.windows.size, calibration.windows.shape[1], plan.weights_bytes(model))
        make_room(
            made,
            needs.kept_bytes,
            scratch_bytes=needs.scratch_bytes,
            limit_bytes=cache_limit_bytes,
            place=folder,
            staying=(calibration.folder,),
        )
        workers = Memory.of(memory_bytes).workers(needs, workers, f"tuning {model.source}")
        with full_disk_explained(folder):
            _Tuning(model, plan, calibration, rounded, device or torch.device("cpu"), workers, progress).run()
    return rounded


def _keep_plain(model: Model, plan: Plan, calibration: Calibration, rounded: Rounded) -> None:
    for tensor in model.tensors:
        if tensor.name in calibration.names and tensor.name not in rounded:
            format = format_named(plan.formats[tensor.name])
            blocks = format.encode(tensor.load(), calibration.importance(tensor.name))
            rounded.keep(tensor.name, blocks, TOO_SHORT)


@dataclass(frozen=True)
class _Loaded:
    """A layer in both models. changed: parameters of the quantized one that were rounded since."""

    index: int
    original: Stored
    quantized: Stored
    changed: tuple[Stored, ...] = ()

    @property
    def now(self) -> tuple[Stored, ...]:
        return self.quantized, *self.changed


@dataclass
class _Tuning:
    model: Model
    plan: Plan
    calibration: Calibration
    rounded: Rounded
    device: torch.device
    workers: int
    progress: Progress

    def __post_init__(self) -> None:
        self.network = Network(configuration_of(self.model), self.device)
        self.original = Weights(self.model)
        self.quantized = Weights(replace(self.model, tensors=tuple(map(self._quantized, self.model.tensors))))
        self.tensors = {tensor.name: tensor for tensor in self.model.tensors}
        self.parameters = stored_parameters(self.model, self.network)
        windows = self.calibration.windows
        self.batches = batches_of(windows, held_back(len(windows)))
        self.short = self._bits_per_weight() < FINE_BITS and are_short(self.device)
        self.half = self._bits_per_weight() < FINE_BITS

    def run(self) -> None:
        private_folder(self.place)
        layers = self._layers_to_go()
        first = self._embed()
        self.blueprint = Blueprint.of(
            self.network, self.original, [self._tokens(batch) for batch in self.batches], self.place
        )
        with Ahead(self._loaded(range(first, layers))) as loaded:
            for layer in loaded:
                for done in self._round_layer(layer):
                    self.progress("tuning", (layer.index + done) / layers)
        shutil.rmtree(self.place)

    @property
    def place(self) -> Path:
        return self.rounded.folder / _UNFINISHED

    @property
    def pool(self) -> Pool:
        return pool_of(self.workers)

    @property
    def _doing(self) -> str:
        return f"tuning {self.model.source}"

    def _tokens(self, batch: Batch) -> torch.Tensor:
        return torch.from_numpy(self.calibration.windows[batch.first : batch.first + batch.shape[0]])

    def _stream(self, stream: str, layer: int) -> States:
        """Return what enters the layer, in "original" or "quantized"."""
        width = self.network.width
        return States(self.place / f"{stream}-{layer}", self.calibration.windows.size, width, exact=True)

    def _states(self, name: str, width: int) -> States:
        """Return a place for vectors of all tokens that one layer needs."""
        return States(self.place / f"{name}.states", self.calibration.windows.size, width, exact=not self.half)

    # Where to begin

    def _layers_to_go(self) -> int:
        """Return the number of layers up to the last one with a matrix that is not rounded yet."""
        return max((layer for layer, name in self._matrices() if name not in self.rounded), default=-1) + 1

    def _matrices(self) -> Iterator[tuple[int, str]]:
        """Yield the number of the layer and the container's name of each matrix that calibration has data on."""
        prefix = f"{self.network.layers_name}."
        for name, parameter in self.parameters.items():
            if name.startswith(prefix) and parameter.container_name in self.calibration.names:
                yield int(name.removeprefix(prefix).partition(".")[0]), parameter.container_name

    def _embed(self) -> int:
        """Find how the network calls its layers, and what enters the first one. Return the first layer to compute: the
        one that an earlier run was in, if everything before it is rounded."""
        with torch.no_grad():
            self.network.texts = "probe"
            self.network.embed(self.original, self._tokens(self.batches[0])[:1, :PROBE_TOKENS])
            growing = [Growing(self._stream(stream, 0)) for stream in ("original", "quantized")]
            for batch in self.batches:
                for states, stream, weights in zip(
                    growing, ("original", "quantized"), (self.original, self.quantized), strict=True
                ):
                    self.network.texts = (stream, batch.number)
                    states.append(self.network.embed(weights, self._tokens(batch)).cpu())
            for states in growing:
                states.finish()
        if self.network.texts_differ:  # an earlier layer leaves something for a later one, in this process only
            self.workers = 1
            return 0
        first = min((layer for layer, name in self._matrices() if name not in self.rounded), default=0)
        there = (
            layer
            for layer in range(first, 0, -1)
            if all(self._stream(stream, layer).is_whole for stream in ("original", "quantized"))
        )
        return next(there, 0)

    # The weights

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

    def _loaded(self, indexes: range) -> Iterator[_Loaded]:
        for index in indexes:
            files = (self.place / f"layer-{index}.{stream}" for stream in ("original", "quantized"))
            original, quantized = (
                store_layer(self.network, index, weights, path, short=self.short)
                for weights, path in zip((self.original, self.quantized), files, strict=True)
            )
            yield _Loaded(index, original, quantized)

    def _with_rounded(self, layer: _Loaded, names: tuple[str, ...]) -> _Loaded:
        """names: of linear layers that have just been rounded."""
        keys = [f"{self.network.layers_name}.{layer.index}.{name}.weight" for name in names]
        loaded = ((key, self.quantized.load([key])[key]) for key in keys)
        kind = torch.bfloat16 if self.short else torch.float32
        path = self.place / f"layer-{layer.index}.{names[0]}.rounded"
        return replace(layer, changed=(*layer.changed, Stored.of(path, ((key, each.to(kind)) for key, each in loaded))))

    # The layer

    def _round_layer(self, layer: _Loaded) -> Iterator[float]:
        """Round the layer's matrices and move the streams past the layer. Yield the share that is done now and then."""
        stages = self._stages(layer)
        inputs, outputs = self._pass_original(layer, stages)
        written = dict[str, States]()
        for number, stage in enumerate(stages):
            yield (number + 0.5) / (len(stages) + 1)
            if any(self._container_name(layer.index, name) not in self.rounded for name in stage.names):
                self._round_stage(layer, stage, inputs[stage.names[0]], written)
                layer = self._with_rounded(layer, stage.names)
            written |= {name: outputs[name] for name in stage.names if name in stage.writing}
        leaving = Growing(self._stream("quantized", layer.index + 1))
        for states in self.pool.in_order(pass_layer, self._passes(layer, "quantized", layer.now), self._doing):
            leaving.append(states)
        leaving.finish()
        for stream in ("original", "quantized"):
            self._stream(stream, layer.index).path.unlink()
        for path in (
            *self.place.glob(f"layer-{layer.index}.*"),
            *self.place.glob("*.states"),
            *self.place.glob("*.npy"),
        ):
            path.unlink()
        yield 1.0

    def _stages(self, layer: _Loaded) -> list[Stage]:
        """Return the layer's stages. Those whose matrices lie in different orders of columns are split."""
        with (
            torch.no_grad(),
            self.network.layer(layer.index, StoredWeights([layer.original])) as module,
            short_products(self.device) if self.short else nullcontext(),
        ):
            names = [name for name, _ in module.named_modules() if self._container_name(layer.index, name)]
            self.network.texts = "probe"
            count = min(PROBE_TOKENS, self.batches[0].shape[1])
            hidden = self._stream("original", layer.index).read(0, count)[None].to(self.device)
            stages = find_stages(self.network, layer.index, module, hidden, names)
        split = []
        for stage in stages:
            groups: dict[bytes, list[str]] = {}
            for name in stage.names:
                groups.setdefault(self._parameter(layer.index, name).columns.tobytes(), []).append(name)
            split += [Stage(tuple(group), stage.writing & set(group)) for group in groups.values()]
        return split

    def _passes(self, layer: _Loaded, stream: str, weights: tuple[Stored, ...]) -> Iterator[PassTask]:
        entering = self._stream(stream, layer.index)
        for batch in self.batches:
            yield PassTask(self.blueprint, layer.index, stream, weights, batch, entering, self.half)

    def _pass_original(self, layer: _Loaded, stages: list[Stage]) -> tuple[dict[str, States], dict[str, States]]:
        """Move the original's stream past the layer. Return what entered each stage, by the name of its first matrix,
        and what its matrices wrote into the residual stream, by their names."""
        index = layer.index
        orders = {stage.names[0]: self._parameter(index, stage.names[0]).columns for stage in stages}
        writing = tuple(name for stage in stages for name in stage.names if name in stage.writing)
        inputs = {name: self._states(f"x {name}", len(order)) for name, order in orders.items()}
        outputs = {name: self._states(f"+ {name}", self.network.width) for name in writing}
        leaving = Growing(self._stream("original", index + 1))
        tasks = (
            OriginalTask(**vars(task), inputs=orders, writing=writing)
            for task in self._passes(layer, "original", (layer.original,))
        )
        for passed in self.pool.in_order(pass_original, tasks, self._doing):
            for states, vectors in ((inputs, passed.inputs), (outputs, passed.outputs)):
                for name, each in vectors.items():
                    states[name].write(leaving.done, each)
            leaving.append(passed.leaving)
        leaving.finish()
        return inputs, outputs

    def _round_stage(self, layer: _Loaded, stage: Stage, inputs: States, written: dict[str, States]) -> None:
        """inputs: what entered the stage in the original. written: by the matrices of the layer that have already
        written into the residual stream, in the original."""
        passes = (
            QuantizedTask(
                **vars(task),
                entrance=stage.names[0],
                columns=self._parameter(layer.index, stage.names[0]).columns,
                original=self._stream("original", layer.index),
                written=written,
            )
            for task in self._passes(layer, "quantized", layer.now)
        )
        rounding = StageRounding(
            self.pool,
            self._doing,
            self.calibration,
            self.plan,
            self.rounded,
            {name: self._parameter(layer.index, name) for name in stage.names},
            {name: self.tensors[self._container_name(layer.index, name)] for name in stage.names},
            str(self.device),
        )
        states = (self._states("x̂", inputs.width), self._states("lacking", self.network.width))
        rounding.round(stage, rounding.sums(stage, inputs, *states, passes))

    def _parameter(self, index: int, name: str) -> StoredParameter:
        return self.parameters[f"{self.network.layers_name}.{index}.{name}.weight"]

    def _container_name(self, index: int, name: str) -> str:
        """Return the tensor that the module's weight is stored in, if calibration has data on it, else ""."""
        parameter = self.parameters.get(f"{self.network.layers_name}.{index}.{name}.weight")
        return parameter.container_name if parameter and parameter.container_name in self.calibration.names else ""
