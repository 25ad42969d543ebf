"""transformers' code for a configuration, without weights."""

from __future__ import annotations

from typing import Any, cast

from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PretrainedConfig, PreTrainedModel

from thriftbit.errors import ThriftbitError
from thriftbit.network.configuration import writes_text
from thriftbit.sources.architectures.spelling import other_part


def without_weights(config: PretrainedConfig) -> PreTrainedModel:
    """Return the model without memory for parameters. Its buffers are there: rotary frequencies follow from the
    configuration. Of a multimodal model it has the text part only.

    Raises ThriftbitError if transformers has no code for the configuration."""
    import torch

    def empty(module: nn.Module, name: str, parameter: nn.Parameter | None) -> Any:
        return None if parameter is None else nn.Parameter(parameter.to("meta"), requires_grad=False)

    hook = nn.modules.module.register_module_parameter_registration_hook(empty)
    try:
        code = AutoModelForCausalLM if writes_text(config) else AutoModelForImageTextToText
        model = cast(Any, code).from_config(config, dtype=torch.float32)
    except ValueError as error:
        raise ThriftbitError(f"transformers cannot compute models of type {config.model_type}: {error}") from None
    finally:
        hook.remove()
    _remove_other_parts(model)
    return cast(PreTrainedModel, model.eval())


def _remove_other_parts(model: nn.Module) -> None:
    """Take away what a multimodal model has for pictures and sound. Its code looks at these parts only where it is
    given some."""
    for name, module in list(model.named_modules()):
        parent, _, own = name.rpartition(".")
        if module is not model and other_part(f"{name}.") and not other_part(f"{parent}."):
            setattr(model.get_submodule(parent), own, None)


def find_layers(model: PreTrainedModel, count: int) -> tuple[str, nn.ModuleList]:
    """Return the name of the model's list of layers, and the list."""
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise ThriftbitError(f"{type(model).__name__} has no list of {count} layers, so it cannot be computed one by one")
