"""The structure of a layer: which of its matrices have the same inputs, and which write into the residual stream.

It is found by sending a few tokens through the layer, so it works for every family without a table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from thriftbit.network.network import Network

Note = Callable[[str, torch.Tensor, torch.Tensor], None]


@dataclass(frozen=True)
class Stage:
    """names: of linear layers with the same inputs. writing: those of them whose output is added to the residual stream
    without a norm or a factor in between."""

    names: tuple[str, ...]
    writing: frozenset[str]


@contextmanager
def watching(layer: nn.Module, names: Collection[str], note: Note) -> Iterator[None]:
    """In this context, `note` is called with (name, inputs, output) whenever one of the linear layers `names` is
    computed."""

    def hook(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        return lambda module, arguments, output: note(name, arguments[0], output)

    hooks = [layer.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


class _Reached(Exception):  # noqa: N818 - nothing went wrong
    def __init__(self, inputs: torch.Tensor) -> None:
        self.inputs = inputs


def inputs_of(network: Network, index: int, layer: nn.Module, hidden: torch.Tensor, name: str) -> torch.Tensor:
    """Return the inputs of the linear layer `name`. Nothing after it is computed. layer, hidden: as for
    `Network.call`."""

    def stop(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        raise _Reached(arguments[0])

    handle = layer.get_submodule(name).register_forward_pre_hook(stop)
    try:
        network.call(index, layer, hidden)
    except _Reached as reached:
        return reached.inputs
    finally:
        handle.remove()
    raise AssertionError(f"{name} is not part of layer {index}")


def find_stages(
    network: Network, index: int, layer: nn.Module, hidden: torch.Tensor, names: Collection[str]
) -> list[Stage]:
    """Return the stages in the order of computation. Linear layers that are not computed exactly once, for all tokens
    in order, are left out.

    layer: number `index`, with its weights. hidden: float32 (texts, length, width), as for `Network.call`. names: of
    the linear layers in question."""
    called: list[tuple[str, torch.Tensor]] = []

    def note(name: str, inputs: torch.Tensor, output: torch.Tensor) -> None:
        if output.shape[:2] == hidden.shape[:2]:
            called.append((name, inputs))

    with watching(layer, names, note):
        network.call(index, layer, hidden)
    order = [name for name, _ in called]
    groups: list[list[str]] = []
    for number, (name, inputs) in enumerate(called):
        if number and inputs is called[number - 1][1]:
            groups[-1].append(name)
        else:
            groups.append([name])
    writing = frozenset(name for name in order if _writes(network, index, layer, hidden, name, order))
    return [Stage(tuple(group), writing & set(group)) for group in groups]


def _writes(
    network: Network, index: int, layer: nn.Module, hidden: torch.Tensor, name: str, order: Sequence[str]
) -> bool:
    """Return whether the linear layer writes into the residual stream: a change of its output changes the layer's
    output by the same amount, if all later linear layers return zero."""
    linear = layer.get_submodule(name)
    if linear.out_features != hidden.shape[-1]:
        return False
    nudge = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(0)).to(hidden.device) * hidden.std()
    later = [layer.get_submodule(other) for other in order[order.index(name) + 1 :]]
    silent = [module.register_forward_hook(lambda module, arguments, output: output * 0) for module in later]
    try:
        without = network.call(index, layer, hidden)
        silent.append(linear.register_forward_hook(lambda module, arguments, output: output + nudge))
        difference = network.call(index, layer, hidden) - without
    finally:
        for handle in silent:
            handle.remove()
    return bool((difference - nudge).norm() < 1e-3 * nudge.norm())
