"""What a model does with text, measured once and kept: the curvature that rounding needs. Needs the extra `torch`.

The problem: everything behind a matrix decides which errors in the matrix matter, and the only judge is the model's
prediction. The choice: for every linear layer, two second moments are measured. One is of its inputs x. The other is of
the gradients g of log-probabilities by its outputs, where each next token is drawn from the model's own distribution.
Then the mean of (gᵀ E x)² is the effect of an error E on the divergence, to second order: the Fisher information. In
that, a token counts |x|²·|g|² (in Kronecker factors, its input counts |g|² and its gradient |x|²: the first step of the
power iteration for the nearest product, arXiv 2505.22988). Such weights differ so much that 17,920 tokens of a real
model say no more than 400 equal ones. So here a token counts with the root, |x|·|g|: tokens that nobody attends to
still hardly count, and ten times as many tokens take part.

There are two passes, layer by layer. The forward pass keeps what enters each layer on disk. The backward pass computes
each layer again from that. Memory holds one layer, its moments, and the gradients at one place of the network. Some
windows take no part in the moments. From those, x and g of some tokens are kept to check a rounding on text that it has
not seen. Tokens are drawn in proportion to how much they count, because in some layers one token in a thousand counts
for a large part.

Experts are too numerous for moments: the mean squares of their inputs are kept, expert by expert, and they are encoded
by importance. Left out: matrices that families fuse or transpose. `Calibration` has no entry for those, and they are
quantized as without a calibration.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from thriftbit.containers.temporary_folder import temporary_folder
from thriftbit.errors import ThriftbitError
from thriftbit.formats.format import FloatArray
from thriftbit.machine.private_files import open_private, private_folder
from thriftbit.network.batches import in_batches
from thriftbit.network.configuration import configuration_of
from thriftbit.network.experts import ExpertInputs, watching_experts
from thriftbit.network.network import Network
from thriftbit.network.products import short_products
from thriftbit.network.states import StatesOnDisk
from thriftbit.network.stored_parameters import StoredParameter, stored_experts, stored_parameters
from thriftbit.network.weights import Weights
from thriftbit.progress import Progress, no_progress, part_of
from thriftbit.quantization.calibration_data import (
    Calibration,
    finish_calibration,
    held_back,
    open_calibration,
    packed,
)
from thriftbit.quantization.presets import is_quantizable
from thriftbit.sources.model import Model

CHECKED_TOKENS = 256  # drawn from those windows
POSITIONS = 256  # that meet a range of the vocabulary at once
VOCABULARY_BYTES = 64 << 20  # of the output matrix in memory at once
LARGEST_LEVEL = 1 - 1e-4  # that a sum of probabilities reaches, whatever rounding takes from it
TRIANGLE_COLUMNS = 1024  # of a moment that are summed at once
LARGEST_ROWS = 8192  # more outputs than that have no moment of gradients: it would take more than a layer

CALIBRATING = "calibrating"  # what progress says


def calibrate(
    model: Model,
    windows: NDArray[np.int64],
    folder: Path,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    progress: Progress = no_progress,
) -> Calibration:
    """windows: (windows, length), token ids of text that nothing will be judged on. folder: gets the data when all of
    it is there, some gigabytes for a model of some gigabytes; what was there before is replaced. progress: see
    `Progress`. The same for the same seed and number of threads.

    Raises ThriftbitError for text without a window or with tokens the model does not have, and for want of memory.
    """
    weights = Weights(model)
    if windows.ndim != 2 or windows.shape[1] < 2 or not len(windows):
        raise ThriftbitError("the calibration text is shorter than one window; give more text")
    if windows.min() < 0 or windows.max() >= weights.embedding.rows:
        raise ThriftbitError(f"{model.source}: the calibration text has tokens that the model does not have")
    network = Network(configuration_of(model), device or torch.device("cpu"))
    with temporary_folder("calibrating", private_folder(folder.parent)) as temporary:
        (unfinished := temporary / "calibration").mkdir()
        names, experts = in_batches(
            lambda tokens: _calibrated(model, network, weights, windows, unfinished, seed, tokens, progress),
            f"calibrating {model.source}",
        )
        known = {*names, *experts}
        matrices = [t.name for t in model.tensors if is_quantizable(t) and t.name.startswith("blk.")]
        missing = [name for name in matrices if name not in known]
        finish_calibration(unfinished, names, experts, missing, windows, seed)
        if folder.exists():  # of another run, or unfinished by an older version
            folder.rename(temporary / "replaced")
        unfinished.rename(folder)
    return open_calibration(folder)


def _calibrated(
    model: Model,
    network: Network,
    weights: Weights,
    windows: NDArray[np.int64],
    folder: Path,
    seed: int,
    batch_tokens: int,
    progress: Progress,
) -> tuple[list[str], list[str]]:
    """Return the names of the tensors whose data was written: matrices and experts."""
    count = max(1, batch_tokens // windows.shape[1])
    batches = [torch.from_numpy(windows[i : i + count]) for i in range(0, len(windows), count)]
    held = [held_back(len(windows))[i : i + count] for i in range(0, len(windows), count)]
    generator = torch.Generator().manual_seed(seed)
    placed, names = stored_parameters(model, network), []
    with torch.no_grad():
        network.embed(weights, batches[0][:1, :2])  # shows how wide the hidden states are
    with _boundaries(folder, network.layers, windows.shape, network.width) as entering:
        hidden, heard = _forward(network, weights, batches, held, entering, part_of(progress, 0, 0.25))
        gradients = _of_the_last(network, weights, hidden, generator)
        progress(CALIBRATING, 0.35)
        for index in reversed(range(network.layers)):
            sums = _backward(network, weights, index, entering[index], gradients, held)
            while sums:  # and none is left in memory when the next layer's begin
                module, moments = sums.popitem()
                name = f"{network.layers_name}.{index}.{module}.weight"
                if name in placed and moments.usable:
                    _write(folder, placed[name], moments, seed)
                    names.append(placed[name].container_name)
            progress(CALIBRATING, 1 - 0.65 * index / network.layers)
    return names, _write_experts(folder, model, heard)


# What enters the layers


@contextmanager
def _boundaries(folder: Path, layers: int, shape: tuple[int, ...], width: int) -> Iterator[list[StatesOnDisk]]:
    entering = folder / "entering"
    entering.mkdir(exist_ok=True)
    yield [StatesOnDisk(entering / f"{layer}.npy", (*shape, width)) for layer in range(layers)]
    shutil.rmtree(entering)


# The passes


@torch.no_grad()
def _forward(
    network: Network,
    weights: Weights,
    batches: list[torch.Tensor],
    held: list[NDArray[np.bool_]],
    entering: list[StatesOnDisk],
    progress: Progress,
) -> tuple[list[torch.Tensor], dict[str, ExpertInputs]]:
    """-> what leaves the last layer, and what experts got, by the names of their modules"""
    hidden, number = [_embedded(network, weights, batch, number) for number, batch in enumerate(batches)], 0
    heard: dict[str, ExpertInputs] = {}

    def used() -> torch.Tensor:
        return torch.from_numpy(np.repeat(~held[number], batches[number].shape[1]))

    for index in range(network.layers):
        first = 0
        with (
            network.layer(index, weights) as layer,
            watching_experts(layer, used) as inputs,
            short_products(network.device),
        ):
            for number, states in enumerate(hidden):
                entering[index].write(first, states)
                first += len(states)
                network.texts = number
                hidden[number] = network.call(index, layer, states)
        heard |= {f"{network.layers_name}.{index}.{name}": each for name, each in inputs.items()}
        progress(CALIBRATING, (index + 1) / network.layers)
    return hidden, heard


def _embedded(network: Network, weights: Weights, batch: torch.Tensor, number: int) -> torch.Tensor:
    network.texts = number
    return network.embed(weights, batch)


def _of_the_last(
    network: Network, weights: Weights, hidden: list[torch.Tensor], generator: torch.Generator
) -> list[torch.Tensor]:
    """Return gradients of −log p(token) by the hidden states, for tokens drawn from p.

    The vocabulary passes twice, in ranges: once for the normaliser, and once for the gradient and the draw. The drawn
    token is the first one at which the running sum of p reaches a random level.
    """
    shape = hidden[0].shape[-1]
    positions = torch.cat([states.reshape(-1, shape) for states in hidden])
    vocabulary = weights.output.rows
    step = max(1, VOCABULARY_BYTES // (4 * shape))
    ranges = [(start, min(start + step, vocabulary)) for start in range(0, vocabulary, step)]
    normaliser = torch.full((len(positions),), -torch.inf, device=positions.device)
    level = LARGEST_LEVEL * torch.rand(len(positions), generator=generator).to(positions.device)
    pieces = [slice(first, first + POSITIONS) for first in range(0, len(positions), POSITIONS)]
    with torch.no_grad(), short_products(network.device):
        for start, stop in ranges:
            head = network.head(weights, start, stop)
            for piece in pieces:
                logits = head(positions[piece]).float()
                normaliser[piece] = torch.logaddexp(normaliser[piece], logits.logsumexp(dim=1))
    gradients, reached = torch.zeros_like(positions), torch.zeros_like(normaliser)
    for start, stop in ranges:
        head = network.head(weights, start, stop)
        for piece in pieces:
            states = positions[piece].clone().requires_grad_()
            with short_products(network.device):
                logits = head(states).float()
            slope = (logits.detach() - normaliser[piece][:, None]).exp()
            sums = slope.cumsum(dim=1) + reached[piece][:, None]
            drawn = ((level[piece] >= reached[piece]) & (level[piece] < sums[:, -1])).nonzero()[:, 0]
            slope[drawn, (sums[drawn] <= level[piece][drawn, None]).sum(dim=1)] -= 1
            reached[piece] = sums[:, -1]
            gradients[piece] += torch.autograd.grad(logits, states, slope)[0]
    counts = [states.shape[0] * states.shape[1] for states in hidden]
    return [part.reshape(states.shape) for part, states in zip(torch.split(gradients, counts), hidden, strict=True)]


@dataclass
class _Moments:
    """Sums over tokens for one linear layer. Each token counts |x|·|g|.

    squares: of inputs. columns: x·xᵀ·|g|÷|x|. rows: g·gᵀ·|x|÷|g|, None if too large. Of columns and rows, only the
    lower triangle is valid. total: the sum of the tokens' weights. total_of_squares: the sum of their squares. sizes:
    √(|g|÷|x|) of every token, window after window. inputs, gradients: of the tokens held back.
    """

    squares: torch.Tensor
    columns: torch.Tensor
    rows: torch.Tensor | None
    outputs: int
    total: float = 0.0
    total_of_squares: float = 0.0
    tokens: int = 0
    sizes: list[torch.Tensor] = field(default_factory=list)
    inputs: list[torch.Tensor] = field(default_factory=list)
    gradients: list[torch.Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, layer: nn.Linear, device: torch.device) -> _Moments:
        n, width = layer.out_features, layer.in_features
        rows = torch.zeros(n, n, device=device) if n <= LARGEST_ROWS else None
        return cls(torch.zeros(width, device=device), torch.zeros(width, width, device=device), rows, n)

    @property
    def usable(self) -> bool:
        finite = all(bool(torch.isfinite(part).all()) for part in (self.squares, self.columns))
        return finite and 0 < self.total < float("inf") and (self.rows is None or bool(torch.isfinite(self.rows).all()))

    def add(self, inputs: torch.Tensor, gradients: torch.Tensor, held: NDArray[np.bool_]) -> None:
        """inputs: (texts, length, width), gradients: (texts, length, n); held: (texts,)"""
        x, g = (part.norm(dim=-1) for part in (inputs, gradients))
        counts = x * g
        x_sizes, g_sizes = (torch.where(counts > 0, ratio.sqrt(), 0) for ratio in (g / x, x / g))
        self.sizes.append(x_sizes)
        for kept in np.flatnonzero(held):
            self.inputs.append(inputs[kept])
            self.gradients.append(gradients[kept])
        used = torch.from_numpy(~held).to(inputs.device)
        inputs, gradients = inputs[used], gradients[used]
        self.squares += inputs.square().sum(dim=(0, 1))
        add_squares(self.columns, (inputs * x_sizes[used][..., None]).flatten(0, 1))
        if self.rows is not None:
            add_squares(self.rows, (gradients * g_sizes[used][..., None]).flatten(0, 1))
        counts = counts[used].double()
        self.total += float(counts.sum())
        self.total_of_squares += float(counts.square().sum())
        self.tokens += counts.numel()


def add_squares(moment: torch.Tensor, vectors: torch.Tensor) -> None:
    """Add the sum over vectors (count, n) of v·vᵀ to the lower triangle of `moment`, (n, n): half of the work."""
    for start in range(0, len(moment), TRIANGLE_COLUMNS):
        stop = start + TRIANGLE_COLUMNS
        moment[start:, start:stop].addmm_(vectors[:, start:].T, vectors[:, start:stop])


def symmetric(lower: torch.Tensor) -> torch.Tensor:
    """lower: (n, n), of which only the lower triangle is valid. Return the same memory, filled up to the symmetric
    matrix."""
    for start in range(0, len(lower), TRIANGLE_COLUMNS):
        stop = start + TRIANGLE_COLUMNS
        corner = lower[start:stop, start:stop]
        corner.copy_(corner.tril() + corner.tril(-1).T)
        lower[start:stop, stop:] = lower[stop:, start:stop].T
    return lower


def _backward(
    network: Network,
    weights: Weights,
    index: int,
    entering: StatesOnDisk,
    gradients: list[torch.Tensor],
    held: list[NDArray[np.bool_]],
) -> dict[str, _Moments]:
    """gradients: by what leaves the layer; afterwards, by what enters it. Return moments by the name of the linear
    layer."""
    moments: dict[str, _Moments] = {}
    with network.layer(index, weights) as layer:
        linears = {name: module for name, module in layer.named_modules() if isinstance(module, nn.Linear)}
        moments = {name: _Moments.of(module, network.device) for name, module in linears.items()}
        first = 0
        for number, leaving in enumerate(gradients):
            met: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
            hooks = [module.register_forward_hook(_noting(name, met)) for name, module in linears.items()]
            states = entering.read(first, len(leaving)).to(network.device).requires_grad_()
            network.texts = number
            with short_products(network.device):
                output = network.call(index, layer, states)
            for hook in hooks:
                hook.remove()
            names = [name for name in met if met[name][1].dim() == 3]
            found = torch.autograd.grad(output, [states, *(met[name][1] for name in names)], leaving, allow_unused=True)
            gradients[number] = found[0]
            for name, gradient in zip(names, found[1:], strict=True):
                if gradient is not None:
                    moments[name].add(met[name][0].float(), gradient.float(), held[number])
            first += len(leaving)
    return moments


def _noting(
    name: str, met: dict[str, tuple[torch.Tensor, torch.Tensor]]
) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
    """Return a hook that notes a layer's input and output."""

    def hook(module: nn.Module, arguments: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        met[name] = (arguments[0].detach(), output)

    return hook


# The files


def _write(folder: Path, place: StoredParameter, moments: _Moments, seed: int) -> None:
    # so that their product is of the size of the mean of (g xᵀ)²
    scale = np.float32(np.sqrt(moments.total_of_squares / moments.tokens) / moments.total)
    order, along = place.order, place.columns
    rows = np.empty(0, np.float32)
    if moments.rows is not None:
        rows = symmetric(moments.rows).cpu().numpy()[np.ix_(order, order)] * scale
    inputs, gradients = _drawn(moments, seed)
    _save(
        folder / f"{place.container_name}.npz",
        importance=(moments.squares / moments.tokens).cpu().numpy()[along],
        columns=packed(_reordered(moments.columns, along)) * scale,
        rows=packed(rows) if rows.size else rows,
        tokens=np.float64(moments.total / moments.total_of_squares * moments.total),
        sizes=torch.cat(moments.sizes).cpu().numpy(),
        inputs=inputs[:, along],
        gradients=gradients[:, order],
    )


def _reordered(moments: torch.Tensor, along: NDArray[np.int64]) -> FloatArray:
    """moments: of which the lower triangle alone means anything. -> the same, its rows and columns in another order"""
    if (along[1:] > along[:-1]).all():
        return moments.cpu().numpy()
    return symmetric(moments).cpu().numpy()[np.ix_(along, along)]


def _write_experts(folder: Path, model: Model, heard: Mapping[str, ExpertInputs]) -> list[str]:
    """Return the names of the tensors whose data was written."""
    written = []
    joined = {f"{module}.{name}": (each, name) for module, each in heard.items() for name in each.squares}
    for parameter, tensors in stored_experts(model, joined).items():
        inputs, name = joined[parameter]
        tokens = inputs.tokens.numpy()
        importance = inputs.squares[name].cpu().numpy() / np.maximum(tokens, 1)[:, None].astype(np.float32)
        if np.isfinite(importance).all():
            for tensor in tensors:
                _save(folder / f"{tensor}.npz", importance=importance, tokens=tokens)
                written.append(tensor)
    return written


def _save(path: Path, **arrays: ArrayLike) -> None:
    with open_private(path, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy takes the arrays for options


def _drawn(moments: _Moments, seed: int) -> tuple[FloatArray, FloatArray]:
    """Return inputs and gradients of held-back tokens, drawn in proportion to how much they count, then scaled to the
    same size. Sums over them estimate the sums over all held-back tokens with the least variance."""
    if not moments.inputs:
        return np.empty((0, len(moments.squares)), np.float32), np.empty((0, moments.outputs), np.float32)
    parts = [torch.cat(part).cpu().numpy() for part in (moments.inputs, moments.gradients)]
    sizes = [np.linalg.norm(part, axis=1) for part in parts]
    counts = sizes[0].astype(np.float64) * sizes[1]
    if not counts.sum() > 0:
        return parts[0][:0], parts[1][:0]
    chosen = np.random.default_rng(seed).choice(len(counts), CHECKED_TOKENS, p=counts / counts.sum())
    size = np.square(counts).mean() ** 0.25
    inputs, gradients = (
        (part[chosen] * (size / length[chosen])[:, None]).astype(np.float32)
        for part, length in zip(parts, sizes, strict=True)
    )
    return inputs, gradients
