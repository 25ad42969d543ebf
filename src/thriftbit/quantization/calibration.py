"""What a model does with text, measured once and kept: the curvature that rounding needs. Needs the extra `torch`.

The problem: everything behind a matrix decides which errors in the matrix matter, and the only judge is the model's
prediction. The choice: for every linear layer, two second moments are measured. One is of its inputs x. The other is of
the gradients g of log-probabilities by its outputs, where each next token is drawn from the model's own distribution.
Then the mean of (gᵀ E x)² is the effect of an error E on the divergence, to second order: the Fisher information. In
that, a token counts |x|²·|g|² (in Kronecker factors, its input counts |g|² and its gradient |x|²: the first step of the
power iteration for the nearest product, arXiv 2505.22988). Such weights differ so much that 17,920 tokens of a real
model say no more than 400 equal ones. So here a token counts with the root, |x|·|g|: tokens that nobody attends to
still hardly count, and ten times as many tokens take part. Matrices with the same input share one moment of it, in
which a token counts with the gradients of all of them together.

There are two passes, layer by layer. The forward pass keeps what enters each layer on disk. The backward pass computes
each layer again from that, and then the layer's moments. All of it is tasks (`calibration_tasks.py`), each for one
batch of text or one panel of a moment, with results in one order. What is finished is kept, layer by layer, so an
interrupted calibration goes on with the layer it was in.

Some windows take no part in the moments. From those, x and g of some tokens are kept to check a rounding on text that
it has not seen. Tokens are drawn in proportion to how much they count, because in some layers one token in a thousand
counts for a large part.

Experts are too numerous for moments: the mean squares of their inputs are kept, expert by expert, and they are encoded
by importance. Left out: matrices that families fuse or transpose. `Calibration` has no entry for those, and they are
quantized as without a calibration.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from thriftbit.errors import ThriftbitError
from thriftbit.library.artefacts import (
    MadeOf,
    full_disk_explained,
    locked,
    make_room,
    read_made_of,
)
from thriftbit.machine.private_files import private_folder
from thriftbit.network.configuration import configuration_of
from thriftbit.network.network import Network
from thriftbit.network.products import are_short
from thriftbit.network.shipped import Blueprint, Stored, store_layer, store_outputs
from thriftbit.network.states import Growing, States
from thriftbit.network.stored_parameters import StoredParameter, stored_experts, stored_parameters
from thriftbit.network.weights import Weights
from thriftbit.progress import Progress, no_progress
from thriftbit.quantization.ahead import Ahead
from thriftbit.quantization.calibration_data import (
    INDEX,
    Calibration,
    DamagedCalibrationError,
    finish_calibration,
    held_back,
    open_calibration,
    save_part,
    what_it_is_made_of,
)
from thriftbit.quantization.calibration_layer import Layer
from thriftbit.quantization.calibration_tasks import (
    BackwardTask,
    Batch,
    EndTask,
    LayerTask,
    Order,
    batches_of,
    pass_backward,
    pass_end,
    pass_forward,
)
from thriftbit.quantization.engine.memory import Memory, calibration_needs
from thriftbit.quantization.engine.pool import Pool, pool_of
from thriftbit.quantization.moments import LARGEST_ROWS
from thriftbit.quantization.presets import is_quantizable
from thriftbit.sources.model import Model

_logger = logging.getLogger(__name__)

CALIBRATING = "calibrating"  # what progress says
FORWARD, END, BACKWARD = 0.2, 0.3, 1.0  # share of the work that is done after each pass, roughly
_UNFINISHED = "unfinished"  # the folder within a calibration for what only its making needs


def calibrate_windows(
    model: Model,
    windows: NDArray[np.int64],
    folder: Path,
    *,
    seed: int = 0,
    workers: int = 1,
    memory_bytes: int | None = None,
    cache_limit_bytes: int | None = None,
    device: torch.device | None = None,
    progress: Progress = no_progress,
) -> Calibration:
    """windows: (windows, length), token ids of text that nothing will be judged on. folder: gets the data. A
    calibration of the same is returned from there, a part of it is gone on with, anything else is replaced. workers:
    processes that compute at once. memory_bytes: what all of them may take, see `Memory`. cache_limit_bytes: see
    `make_room`. progress: see `Progress`. The same bytes for any number of workers and any memory, on one kind of
    processor.

    Raises ThriftbitError for text without a window or with tokens the model does not have, for want of memory or disk.
    """
    weights = Weights(model)
    if windows.ndim != 2 or windows.shape[1] < 2 or not len(windows):
        raise ThriftbitError("the calibration text is shorter than one window; give more text")
    if windows.min() < 0 or windows.max() >= weights.embedding.rows:
        raise ThriftbitError(f"{model.source}: the calibration text has tokens that the model does not have")
    made = what_it_is_made_of(model, windows, seed)
    with locked(folder, f"calibrating {model.source}"):
        if (folder / INDEX).exists():
            try:
                return open_calibration(folder, made)
            except DamagedCalibrationError as error:
                _logger.info(f"{error}. It is made again")
        network = Network(configuration_of(model), device or torch.device("cpu"))
        needs = calibration_needs(model, windows.size, windows.shape[1], network.width)
        make_room(
            made,
            needs.kept_bytes,
            scratch_bytes=needs.scratch_bytes,
            limit_bytes=cache_limit_bytes,
            place=folder,
        )
        _keep_only_the_same(folder, made)
        workers = Memory.of(memory_bytes).workers(needs, workers, f"calibrating {model.source}")
        making = _Making(model, network, weights, windows, folder, made, seed, workers, progress)
        with full_disk_explained(folder):
            return making.run()


def _keep_only_the_same(folder: Path, made: MadeOf) -> None:
    """Remove what is in the folder, unless it is a part of the same calibration."""
    if folder.exists() and read_made_of(folder) != made:
        shutil.rmtree(folder)
    private_folder(folder / _UNFINISHED)
    made.write(folder)


@dataclass
class _Making:
    model: Model
    network: Network
    weights: Weights
    windows: NDArray[np.int64]
    folder: Path
    made_of: MadeOf
    seed: int
    workers: int
    progress: Progress

    def run(self) -> Calibration:
        self._embed()
        self.blueprint = Blueprint.of(self.network, self.weights, [self._tokens(b) for b in self.batches], self.place)
        self._forward()
        self._end()
        layers = self._backward()
        known = {name for layer in layers for name in (*layer.sharing, *layer.experts)}
        matrices = [t.name for t in self.model.tensors if is_quantizable(t) and t.name.startswith("blk.")]
        missing = [name for name in matrices if name not in known]
        sharing = {name: shared for layer in layers for name, shared in layer.sharing.items()}
        experts = [name for layer in layers for name in layer.experts]
        left_out = {name: count for layer in layers for name, count in layer.left_out.items()}
        calibration = finish_calibration(self.folder, self.made_of, sharing, experts, missing, self.windows, left_out)
        shutil.rmtree(self.place)
        return calibration

    @property
    def place(self) -> Path:
        return self.folder / _UNFINISHED

    @cached_property
    def batches(self) -> list[Batch]:
        return batches_of(self.windows, held_back(len(self.windows)))

    @cached_property
    def placed(self) -> dict[str, StoredParameter]:
        return stored_parameters(self.model, self.network)

    @property
    def pool(self) -> Pool:
        return pool_of(self.workers)

    def _tokens(self, batch: Batch) -> torch.Tensor:
        return torch.from_numpy(self.windows[batch.first : batch.first + batch.shape[0]])

    @torch.no_grad()
    def _embed(self) -> None:
        """Find what enters the first layer, and how the network calls its layers for such batches."""
        entering = None
        for batch in self.batches:
            self.network.texts = batch.number
            states = self.network.embed(self.weights, self._tokens(batch)).cpu()
            entering = entering or Growing(self._entering(0))  # the network knows its width from here on
            entering.append(states)
            if not batch.number and self.network.texts_differ:
                # an earlier layer leaves something for a later one, in this process only: what is there is of no use
                self.workers = 1
                self._remove_states()
        assert entering is not None
        entering.finish()

    def _remove_states(self) -> None:
        for path in self.place.glob("*-*"):
            if path.suffix != ".unfinished":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _entering(self, layer: int) -> States:
        """Return what enters the layer; of the number of layers, what leaves the last."""
        return States(self.place / f"entering-{layer}", self.windows.size, self.network.width)

    def _gradients(self, layer: int) -> States:
        """Return gradients by what enters the layer."""
        return States(self.place / f"gradients-{layer}", self.windows.size, self.network.width)

    @contextmanager
    def _layers(self, numbers: list[int]) -> Iterator[Iterator[tuple[int, Stored]]]:
        """Yield the layers, each with its weights; the next one's are read meanwhile."""
        short = are_short(self.network.device)

        def read() -> Iterator[tuple[int, Stored]]:
            for number in numbers:
                path = self.place / f"layer-{number}.weights"
                yield number, store_layer(self.network, number, self.weights, path, short=short)

        with Ahead(read()) as ahead:
            yield iter(ahead)

    # The passes

    def _forward(self) -> None:
        layers = self.network.layers
        ahead = [number for number in range(layers) if not self._entering(number + 1).is_whole]
        with self._layers(ahead) as stored:
            for number, weights in stored:
                layer = Layer(self.folder, self.made_of, number)
                growing = Growing(self._entering(number + 1))
                tasks = (LayerTask(self.blueprint, number, weights, b, self._entering(number)) for b in self.batches)
                for passed in self.pool.in_order(pass_forward, tasks, self._doing):
                    growing.append(passed.leaving)
                    layer.hear(passed.experts)
                    self._tell(0, FORWARD, (number + growing.done / self.windows.size) / layers)
                self._write_experts(layer)
                growing.finish()
                weights.path.unlink()

    def _end(self) -> None:
        layers = self.network.layers
        if any(self._gradients(number).is_whole for number in range(layers + 1)):
            return
        outputs = store_outputs(self.weights, self.place / "outputs.weights", short=are_short(self.network.device))
        levels = torch.rand(self.windows.size, generator=torch.Generator().manual_seed(self.seed)).numpy()
        growing = Growing(self._gradients(layers))
        tasks = (
            EndTask(
                self.blueprint,
                outputs,
                batch,
                self._entering(layers),
                levels[batch.first_token : batch.first_token + batch.tokens],
            )
            for batch in self.batches
        )
        for gradients in self.pool.in_order(pass_end, tasks, self._doing):
            growing.append(gradients)
            self._tell(FORWARD, END, growing.done / self.windows.size)
        growing.finish()
        outputs.path.unlink()

    def _backward(self) -> list[Layer]:
        layers = self.network.layers
        made = {number: Layer(self.folder, self.made_of, number) for number in range(layers)}
        reached = min(number for number in range(layers + 1) if self._gradients(number).is_whole)
        with self._layers(list(reversed(range(reached)))) as stored:
            for number, weights in stored:
                self._layer_back(made[number], number, weights)
                weights.path.unlink()
        return [layer.recall(self.place) for layer in made.values()]

    def _layer_back(self, layer: Layer, number: int, weights: Stored) -> None:
        orders = self._orders(number)
        layer.begin(self.place / f"captured-{number}", self.batches, orders, self._containers(number, orders))
        growing = Growing(self._gradients(number))
        tasks = (
            BackwardTask(
                self.blueprint, number, weights, batch, self._entering(number), self._gradients(number + 1), orders
            )
            for batch in self.batches
        )
        layers, done = self.network.layers, self.network.layers - number - 1
        for returned in self.pool.in_order(pass_backward, tasks, self._doing):
            layer.add(returned)
            growing.append(returned.entering)
            self._tell(END, BACKWARD, (done + 0.5 * growing.done / self.windows.size) / layers)
        for share in layer.write(self.pool, self._doing, self.seed, str(self.network.device)):
            self._tell(END, BACKWARD, (done + 0.5 + 0.5 * share) / layers)
        layer.note(self.place, "matrices")
        growing.finish()  # only now: whoever finds these gradients need not compute the layer again
        self._gradients(number + 1).path.unlink()

    def _orders(self, number: int) -> dict[str, Order]:
        """Return the linear layers whose weights are one of the container's matrices."""
        prefix, found = f"{self.network.layers_name}.{number}.", {}
        for name in self.network.linear_names(number):
            if place := self.placed.get(f"{prefix}{name}.weight"):
                rows, columns = (None if _is_sorted(order) else order for order in (place.order, place.columns))
                found[name] = Order(rows, columns, len(place.order) <= LARGEST_ROWS)
        return found

    def _containers(self, number: int, orders: dict[str, Order]) -> dict[str, str]:
        prefix = f"{self.network.layers_name}.{number}."
        return {name: self.placed[f"{prefix}{name}.weight"].container_name for name in orders}

    def _write_experts(self, layer: Layer) -> None:
        prefix = f"{self.network.layers_name}.{layer.number}"
        joined = {f"{prefix}.{name}": parts for name, parts in layer.heard_by_matrix()}
        for parameter, tensors in stored_experts(self.model, joined).items():
            squares, tokens = joined[parameter]
            importance = squares / np.maximum(tokens, 1)[:, None].astype(np.float32)
            if np.isfinite(importance).all():
                for tensor in tensors:
                    save_part(self.folder, self.made_of, tensor, importance=importance, tokens=tokens)
                    layer.experts.append(tensor)
        layer.note(self.place, "experts")

    @property
    def _doing(self) -> str:
        return f"calibrating {self.model.source}"

    def _tell(self, start: float, stop: float, share: float) -> None:
        self.progress(CALIBRATING, start + (stop - start) * share)


def _is_sorted(order: NDArray[np.int64]) -> bool:
    return bool((order[1:] > order[:-1]).all())
