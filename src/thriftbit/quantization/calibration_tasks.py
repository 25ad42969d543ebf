"""The tasks of a calibration: pure functions of their inputs, each for one batch of text or one piece of a moment.

A batch is always the same windows, whatever the memory and the number of workers, because a product of other rows may
differ in the last bit. Needs the extra `torch`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from thriftbit.formats.format import FloatArray
from thriftbit.network.experts import watching_experts
from thriftbit.network.network import Network
from thriftbit.network.products import short_products
from thriftbit.network.shipped import Blueprint, Stored, StoredWeights, layer_of
from thriftbit.network.states import Halves, States
from thriftbit.quantization.moments import PANEL

BATCH_TOKENS = 512  # that pass a layer at once, or one window if that is longer
POSITIONS = 256  # that meet a range of the vocabulary at once
VOCABULARY_BYTES = 64 << 20  # of the output matrix in memory at once, as float32
LARGEST_LEVEL = 1 - 1e-4  # that a sum of probabilities reaches, whatever rounding takes from it
CHUNK_TOKENS = 2048  # that are added to a moment at once
CORNER = 256  # columns of a panel's corner that are computed at once: half of a corner is of no use


@dataclass(frozen=True)
class Batch:
    """Some windows of the text. number: of the batch. first: number of its first window. shape: (windows, length).
    held: bool (windows,), those that take no part in moments."""

    number: int
    first: int
    shape: tuple[int, int]
    held: NDArray[np.bool_]

    @property
    def first_token(self) -> int:
        return self.first * self.shape[1]

    @property
    def tokens(self) -> int:
        return self.shape[0] * self.shape[1]

    def states(self, states: States, device: torch.device) -> torch.Tensor:
        """Return float32 (windows, length, width): the batch's part of states of the whole text."""
        return states.read(self.first_token, self.tokens).reshape(*self.shape, -1).to(device)


def batches_of(windows: NDArray[np.int64], held: NDArray[np.bool_]) -> list[Batch]:
    """windows: (windows, length). held: bool (windows,)."""
    count = max(1, BATCH_TOKENS // windows.shape[1])
    firsts = range(0, len(windows), count)
    return [
        Batch(number, first, (len(held[first : first + count]), windows.shape[1]), held[first : first + count])
        for number, first in enumerate(firsts)
    ]


@dataclass(frozen=True)
class LayerTask:
    """A layer and a batch. layer: number of the layer. weights: its weights. entering: what enters it."""

    blueprint: Blueprint
    layer: int
    weights: Stored
    batch: Batch
    entering: States


@dataclass(frozen=True)
class Passed:
    """What a batch left behind in the forward pass. leaving: what leaves the layer. experts: by the names of the
    layer's modules of experts, for each joined matrix float32 (experts, width), sums of squares of what enters each
    expert's part; and under "tokens" int64 (experts,)."""

    leaving: Halves
    experts: dict[str, dict[str, NDArray[Any]]]


@torch.no_grad()
def pass_forward(task: LayerTask) -> Passed:
    batch = task.batch
    used = torch.from_numpy(np.repeat(~batch.held, batch.shape[1]))
    with (
        layer_of(task.blueprint, task.layer, [task.weights]) as (network, layer),
        watching_experts(layer, lambda: used) as heard,
        short_products(network.device),
    ):
        network.texts = batch.number
        leaving = network.call(task.layer, layer, batch.states(task.entering, network.device))
    experts = {
        name: {**{matrix: sums.cpu().numpy() for matrix, sums in each.squares.items()}, "tokens": each.tokens.numpy()}
        for name, each in heard.items()
    }
    return Passed(Halves.of(leaving), experts)


@dataclass(frozen=True)
class Order:
    """Where a matrix lies in the container. rows, columns: the module's row and column for each of the container's;
    None where the order is the same. with_rows: whether the moment of its gradients is wanted."""

    rows: NDArray[np.int64] | None
    columns: NDArray[np.int64] | None
    with_rows: bool


@dataclass(frozen=True)
class BackwardTask(LayerTask):
    """gradients: by what leaves the layer. orders: of the linear modules that are wanted, by name."""

    gradients: States
    orders: dict[str, Order]


@dataclass(frozen=True)
class Inputs:
    """What some linear layers get, which share it. names: of the layers. vectors: of all tokens. sizes: float32
    (tokens,), |x|. shares: float32 (tokens,), √(|G|÷|x|), where |G| is the size of the gradients of all the layers
    together; 0 for tokens that are left out, as they or their gradients are zero or not finite. lost: bool (tokens,),
    whether they are not finite. squares, diagonal: float32 (width,), sums over tokens that are not held back: of x²,
    and of x²·|G|÷|x|."""

    names: tuple[str, ...]
    vectors: Halves
    sizes: FloatArray
    shares: FloatArray
    lost: NDArray[np.bool_]
    squares: FloatArray
    diagonal: FloatArray


@dataclass(frozen=True)
class Gradients:
    """Of one linear layer. vectors: of all tokens, or only of those held back if its moment is not wanted. sizes:
    float32 (tokens,), |g|, of all. diagonal: float32 (n,), the sum of g²·|x|÷|g|, over tokens that are used."""

    vectors: Halves
    sizes: FloatArray
    diagonal: FloatArray


@dataclass(frozen=True)
class Returned:
    """What a batch left behind in the backward pass. entering: gradients by what enters the layer."""

    entering: Halves
    inputs: tuple[Inputs, ...]
    gradients: dict[str, Gradients]


@dataclass
class _Met:
    inputs: torch.Tensor
    output: torch.Tensor
    gradient: torch.Tensor = field(default_factory=lambda: torch.empty(0))


def pass_backward(task: BackwardTask) -> Returned:
    met: dict[str, _Met] = {}
    with layer_of(task.blueprint, task.layer, [task.weights]) as (network, layer):
        hooks = [layer.get_submodule(name).register_forward_hook(_noting(name, met)) for name in task.orders]
        states = task.batch.states(task.entering, network.device).requires_grad_()
        leaving = task.batch.states(task.gradients, network.device)
        network.texts = task.batch.number
        with torch.enable_grad(), short_products(network.device):
            output = network.call(task.layer, layer, states)
        for hook in hooks:
            hook.remove()
        names = [name for name in met if met[name].output.dim() == 3]
        outputs = [met[name].output for name in names]
        found = torch.autograd.grad(output, [states, *outputs], leaving, allow_unused=True)
    for name, gradient in zip(names, found[1:], strict=True):
        if gradient is not None:
            met[name].gradient = gradient.float()
    wanted = {name: met[name] for name in names if met[name].gradient.numel()}
    held = torch.from_numpy(np.repeat(task.batch.held, task.batch.shape[1])).to(states.device)
    inputs: list[Inputs] = []
    gradients: dict[str, Gradients] = {}
    for group in _sharing(wanted, task.orders):
        own, others = _of_group({name: wanted[name] for name in group}, task.orders, held)
        inputs.append(own)
        gradients |= others
    return Returned(Halves.of(found[0]), tuple(inputs), gradients)


def _noting(name: str, met: dict[str, _Met]) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
    """Return a hook that notes a layer's input and output."""

    def hook(module: nn.Module, arguments: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        met[name] = _Met(arguments[0].detach(), output)

    return hook


def _sharing(met: dict[str, _Met], orders: dict[str, Order]) -> list[tuple[str, ...]]:
    """Return the names in groups with the same input, in the same order of columns."""
    groups: dict[tuple[int, bytes], list[str]] = {}
    for name, each in met.items():
        columns = orders[name].columns
        # detached tensors of one input share its memory
        key = (each.inputs.data_ptr(), b"" if columns is None else columns.tobytes())
        groups.setdefault(key, []).append(name)
    return [tuple(names) for names in groups.values()]


def _of_group(
    met: dict[str, _Met], orders: dict[str, Order], held: torch.Tensor
) -> tuple[Inputs, dict[str, Gradients]]:
    names = tuple(met)
    x = _ordered(met[names[0]].inputs, orders[names[0]].columns)
    g = {name: _ordered(met[name].gradient, orders[name].rows) for name in names}
    x_sizes, g_sizes = x.norm(dim=-1), {name: each.norm(dim=-1) for name, each in g.items()}
    together = torch.stack(list(g_sizes.values())).norm(dim=0)
    # a token that is not finite in any of them is left out of all
    lost = ~(torch.isfinite(x_sizes) & torch.isfinite(together))
    good = ~lost & (x_sizes > 0) & (together > 0)
    shares = torch.where(good, (together / x_sizes).sqrt(), 0)
    x, used = torch.where(lost[:, None], 0, x), ~lost & ~held
    inputs = Inputs(
        names,
        Halves.of(x),
        torch.where(lost, 0, x_sizes).cpu().numpy(),
        shares.cpu().numpy(),
        lost.cpu().numpy(),
        x[used].square().sum(dim=0).cpu().numpy(),
        (x[used] * shares[used][:, None]).square().sum(dim=0).cpu().numpy(),
    )
    gradients = {}
    for name in names:
        sizes = torch.where(lost, 0, g_sizes[name])
        own = torch.where(lost[:, None], 0, g[name])
        share = torch.where(sizes > 0, x_sizes / sizes, 0).sqrt()
        diagonal = (own[used] * share[used][:, None]).square().sum(dim=0)
        kept = own if orders[name].with_rows else own[held]
        gradients[name] = Gradients(Halves.of(kept), sizes.cpu().numpy(), diagonal.cpu().numpy())
    return inputs, gradients


def _ordered(vectors: torch.Tensor, order: NDArray[np.int64] | None) -> torch.Tensor:
    """vectors: (windows, length, width). Return float32 (tokens, width), in the container's order."""
    flat = vectors.flatten(0, 1).float()
    return flat if order is None else flat[:, torch.from_numpy(order).to(flat.device)]


@dataclass(frozen=True)
class PanelTask:
    """A piece of a moment, the sum over tokens of share²·v·vᵀ. vectors: v of all tokens. shares: float32 (tokens,), 0
    for those that do not count. start: the panel's first column. roots: what rows and columns are divided by, as in
    `moments`, for a panel in half precision; None for one in float32."""

    vectors: States
    shares: FloatArray
    start: int
    roots: FloatArray | None
    device: str = "cpu"


@torch.no_grad()
def moment_panel(task: PanelTask) -> NDArray[np.floating[Any]]:
    """Return (width - start, PANEL or what is left); above the diagonal, nothing of use."""
    width, start = task.vectors.width, task.start
    stop = min(start + PANEL, width)
    panel = torch.zeros(width - start, stop - start, device=task.device)
    for first in range(0, len(task.shares), CHUNK_TOKENS):
        shares = task.shares[first : first + CHUNK_TOKENS]
        chosen = torch.from_numpy(np.flatnonzero(shares))
        if len(chosen):
            vectors = task.vectors.read(first, len(shares))[chosen, start:]
            vectors = (vectors * torch.from_numpy(shares)[chosen, None]).to(task.device)
            add_panel(panel, vectors)
    if task.roots is None:
        return panel.cpu().numpy()
    scale = torch.from_numpy(1 / task.roots[start:]).to(task.device)
    return (panel * scale[:, None] * scale[: stop - start]).to(torch.float16).cpu().numpy()


def add_panel(panel: torch.Tensor, vectors: torch.Tensor) -> None:
    """panel: (n, columns), of which the part above the diagonal is of no use. vectors: (count, n). Add the sum of
    v·vᵀ."""
    columns = panel.shape[1]
    if len(panel) > columns:
        panel[columns:].addmm_(vectors[:, columns:].T, vectors[:, :columns])
    for start in range(0, columns, CORNER):
        stop = min(start + CORNER, columns)
        panel[start:columns, start:stop].addmm_(vectors[:, start:columns].T, vectors[:, start:stop])


@dataclass(frozen=True)
class EndTask:
    """The way from the last layer to the words, and back, for one batch. leaving: what leaves the last layer. outputs:
    the output matrix. levels: float32 (tokens of the batch,), between 0 and 1, by which words are drawn."""

    blueprint: Blueprint
    outputs: Stored
    batch: Batch
    leaving: States
    levels: FloatArray


def pass_end(task: EndTask) -> Halves:
    """Return gradients of −log p(token) by the hidden states, for tokens drawn from p.

    The vocabulary passes twice, in ranges: once for the normaliser, and once for the gradient and the draw. The drawn
    token is the first one at which the running sum of p reaches a random level.
    """
    network = task.blueprint.build()
    positions = task.leaving.read(task.batch.first_token, task.batch.tokens).to(network.device)
    weights = StoredWeights([task.blueprint.outside], task.outputs)
    levels = torch.from_numpy(LARGEST_LEVEL * task.levels).to(network.device)
    return Halves.of(gradients_of_the_last(network, weights, positions, levels))


def gradients_of_the_last(
    network: Network, weights: StoredWeights, positions: torch.Tensor, level: torch.Tensor
) -> torch.Tensor:
    """positions: float32 (positions, width). level: (positions,). Return float32 (positions, width)."""
    vocabulary = weights.output_rows
    step = max(1, VOCABULARY_BYTES // (4 * positions.shape[1]))
    ranges = [(start, min(start + step, vocabulary)) for start in range(0, vocabulary, step)]
    normaliser = torch.full((len(positions),), -torch.inf, device=positions.device)
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
    return gradients
