"""The inputs of each expert's matrices, in a network that holds all experts of a layer in one tensor.

transformers joins the matrices of a layer's experts, gate with up, and multiplies by them inside one module, where no
hook sees the inputs of a single expert. But the arguments of that module are known: the tokens, and the experts of each
token. The inputs of an expert's last matrix follow from its first two, and are computed once more here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

# transformers' names of the joined matrices: the first ones of an expert (the second name if there is no gate), and the
# last one. Its modules state their layout (`is_transposed`) and what is computed between the two.
FIRST, LAST = ("gate_up_proj", "up_proj"), "down_proj"


class ExpertInputs:
    """Sums over the inputs of a layer's experts.

    module: transformers' module of the experts. squares: for each joined matrix, float32 (experts, width), sums of
    squared inputs of each expert. tokens: int64 (experts,), the number of tokens in each sum."""

    def __init__(self, module: nn.Module) -> None:
        self._module, self._first = module, _joined(module, FIRST)
        self._transposed = getattr(module, "is_transposed", False)
        self.squares = {}
        for name in (self._first, LAST):
            joined = module.get_parameter(name)
            width = joined.shape[1 if self._transposed else 2]
            self.squares[name] = torch.zeros(joined.shape[0], width).to(joined.device)
        self.tokens = torch.zeros(module.get_parameter(LAST).shape[0], dtype=torch.int64)

    @torch.no_grad()
    def add(self, hidden: torch.Tensor, chosen: torch.Tensor) -> None:
        """Add the inputs of some tokens. hidden: (tokens, width). chosen: int64 (tokens, experts per token)."""
        for expert in set(chosen.flatten().tolist()):
            entering = hidden[(chosen == expert).any(dim=1)]
            between = self._between(entering, expert)
            self.tokens[expert] += len(entering)
            for name, inputs in ((self._first, entering), (LAST, between)):
                self.squares[name][expert] += inputs.float().square().sum(dim=0)

    def _between(self, entering: torch.Tensor, expert: int) -> torch.Tensor:
        """Return the inputs of the expert's last matrix, computed by its first matrices from `entering`."""
        first = self._module.get_parameter(self._first)[expert]
        bias = self._module.get_parameter(f"{self._first}_bias")[expert] if self._has_bias() else None
        made = nn.functional.linear(entering, first.T if self._transposed else first, bias)
        if self._first == FIRST[1]:
            return self._module.act_fn(made)  # type: ignore[operator, no-any-return]
        if hasattr(self._module, "_apply_gate"):
            return self._module._apply_gate(made)  # type: ignore[operator, no-any-return]
        gate, up = made.chunk(2, dim=-1)
        return self._module.act_fn(gate) * up  # type: ignore[operator, no-any-return]

    def _has_bias(self) -> bool:
        return isinstance(getattr(self._module, f"{self._first}_bias", None), nn.Parameter)


def _joined(module: nn.Module, names: tuple[str, ...]) -> str:
    """Return the first of the names for which the module has a tensor of all experts; "" if there is none."""
    parameters = {name: getattr(module, name, None) for name in names}
    return next((name for name, each in parameters.items() if isinstance(each, nn.Parameter) and each.dim() == 3), "")


@contextmanager
def watching_experts(layer: nn.Module, used: Callable[[], torch.Tensor]) -> Iterator[dict[str, ExpertInputs]]:
    """Yield the sums of each module of experts in the layer, by the module's name. Sums grow while the context lasts.

    used: is called whenever the layer is computed, and returns which of its tokens count, bool (tokens,)."""
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
    """Return whether the module's experts have the layout that it states. Some families use the same names
    otherwise."""
    first = _joined(module, FIRST)
    if not first or not _joined(module, (LAST,)):
        return False
    experts, width, between = module.get_parameter(LAST).shape
    if getattr(module, "is_transposed", False):
        width, between = between, width
    entered = (experts, between if first == FIRST[1] else 2 * between, width)
    shape = tuple(module.get_parameter(first).shape)
    return shape == ((entered[0], entered[2], entered[1]) if getattr(module, "is_transposed", False) else entered)
