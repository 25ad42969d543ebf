"""transformers' code for a configuration, without weights."""

from __future__ import annotations

from typing import Any, cast

from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from thriftbit.errors import ThriftbitError


def without_weights(config: PretrainedConfig) -> PreTrainedModel:
    """Return the model without memory for parameters. Its buffers are there: rotary frequencies follow from the
    configuration.

    Raises ThriftbitError if transformers has no code for the configuration."""
    import torch

    def empty(module: nn.Module, name: str, parameter: nn.Parameter | None) -> Any:
        return None if parameter is None else nn.Parameter(parameter.to("meta"), requires_grad=False)

    hook = nn.modules.module.register_module_parameter_registration_hook(empty)
    try:
        model = cast(Any, AutoModelForCausalLM).from_config(config, dtype=torch.float32)
    except ValueError as error:
        raise ThriftbitError(f"transformers cannot compute models of type {config.model_type}: {error}") from None
    finally:
        hook.remove()
    return cast(PreTrainedModel, model.eval())


def find_layers(model: PreTrainedModel, count: int) -> tuple[str, nn.ModuleList]:
    """Return the name of the model's list of layers, and the list."""
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise ThriftbitError(f"{type(model).__name__} has no list of {count} layers, so it cannot be computed one by one")
