"""What goes into each expert's matrices, in a network that holds all experts of a layer in one tensor.

transformers joins the matrices of a layer's experts, gate with up, and multiplies with them inside one module, where no
hook sees what a single one gets. What that module is called with says it, though: the tokens, and the experts of each.
What the last matrix of an expert gets follows from the first two, and is computed once more here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from thriftbit.network.weights import FUSED

FIRST, LAST = FUSED  # transformers' names of the joined matrices


class ExpertInputs:
    """module: of a layer's experts. squares: for each joined matrix, float32 (experts, width), sums of squares of what
    an expert's part of it gets. tokens: int64 (experts,), over how many."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        joined = {name: module.get_parameter(name) for name in (FIRST, LAST)}
        self.squares = {
            name: torch.zeros(each.shape[0], each.shape[2]).to(each.device) for name, each in joined.items()
        }
        self.tokens = torch.zeros(len(joined[FIRST]), dtype=torch.int64)

    @torch.no_grad()
    def add(self, hidden: torch.Tensor, chosen: torch.Tensor) -> None:
        """hidden: (tokens, width). chosen: int64 (tokens, experts of each)"""
        first = self._module.get_parameter(FIRST)
        for expert in set(chosen.flatten().tolist()):
            entering = hidden[(chosen == expert).any(dim=1)]
            gate, up = nn.functional.linear(entering, first[expert]).chunk(2, dim=-1)
            between = self._module.act_fn(gate) * up  # type: ignore[operator]
            self.tokens[expert] += len(entering)
            for name, inputs in ((FIRST, entering), (LAST, between)):
                self.squares[name][expert] += inputs.float().square().sum(dim=0)


@contextmanager
def watching_experts(layer: nn.Module, used: Callable[[], torch.Tensor]) -> Iterator[dict[str, ExpertInputs]]:
    """used: is asked, whenever the layer is computed, which of its tokens count, bool (tokens,). -> by the names of the
    layer's modules of experts, what is gathered while it lasts"""
    found = {name: ExpertInputs(module) for name, module in layer.named_modules() if _has_experts(module)}

    def hook(inputs: ExpertInputs) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def note(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
            hidden, chosen = arguments[:2]
            counts = used().to(hidden.device)
            inputs.add(hidden.reshape(-1, hidden.shape[-1])[counts], chosen.reshape(len(counts), -1)[counts])

        return note

    handles = [layer.get_submodule(name).register_forward_pre_hook(hook(each)) for name, each in found.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _has_experts(module: nn.Module) -> bool:
    joined = [getattr(module, name, None) for name in (FIRST, LAST)]
    return all(isinstance(each, nn.Parameter) and each.dim() == 3 for each in joined)
