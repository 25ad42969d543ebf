"""A model's configuration as transformers wants it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, PretrainedConfig

from thriftbit.errors import ThriftbitError
from thriftbit.sources.architectures import Architecture, architecture_from_gguf, find_architecture
from thriftbit.sources.architectures.from_gguf import config_from_gguf
from thriftbit.sources.model import Model


def configuration_of(model: Model) -> PretrainedConfig:
    """Return the configuration of the model, or of its text part where transformers computes that alone. For a GGUF it
    is put together from the metadata.
    Raises ThriftbitError if that is not possible, or if transformers does not accept the configuration."""
    config = model.config or _from_gguf(model)
    settings = {key: value for key, value in config.items() if key not in ("model_type", "dtype", "torch_dtype")}
    settings = plain_numbers(settings) | left_of_multipliers(config)
    settings["pad_token_id"] = None  # a family's default may be beyond the vocabulary, and nothing is padded here
    model_type = str(config.get("model_type"))
    if (other := _computed_as(config)) is not None:
        model_type, settings = other.computed_as, _of_the_text(settings, other)
    elif model_type not in CONFIG_MAPPING:  # Kimi K2 is a DeepSeek V3 with a model type that its own code declares
        model_type = find_architecture(config).model_types[0]
    try:
        whole = AutoConfig.for_model(model_type, **settings)
        text = whole.get_text_config()
        return text if writes_text(text) else whole
    except (TypeError, ValueError, KeyError, AttributeError, StrictDataclassError) as error:
        raise ThriftbitError(f"{model.source}: transformers does not take its configuration: {error}") from None


def writes_text(config: PretrainedConfig) -> bool:
    """Return whether transformers has a model for the configuration that writes text and does nothing else."""
    return type(config) in MODEL_FOR_CAUSAL_LM_MAPPING


def left_of_multipliers(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the values of multipliers that remain after the container's weights were multiplied by them."""
    architecture = _table(config)
    return architecture.multipliers if architecture else {}


def _computed_as(config: Mapping[str, Any]) -> Architecture | None:
    """Return the family if its text part is computed as another model type, else None."""
    architecture = _table(config)
    return architecture if architecture and architecture.computed_as else None


def _of_the_text(settings: Mapping[str, Any], architecture: Architecture) -> dict[str, Any]:
    """Return the settings of the text part alone, with the family's fixed values filled in."""
    granted = {name: values[0] for name, values in architecture.fixed.items()}
    text = {key: value for key, value in settings.get("text_config", settings).items() if key != "model_type"}
    tied = architecture.configuration(settings).flag("tie_word_embeddings")
    return granted | text | {"tie_word_embeddings": tied, "pad_token_id": None}


def _table(config: Mapping[str, Any]) -> Architecture | None:
    try:
        return find_architecture(config)
    except ThriftbitError:
        return None


def plain_numbers(value: Any) -> Any:
    """Return a configuration's value with infinity and NaN as numbers. transformers writes them as {"__float__":
    "Infinity"}."""
    if isinstance(value, dict):
        if value.keys() == {"__float__"}:
            return float(value["__float__"])
        return {key: plain_numbers(each) for key, each in value.items()}
    return [plain_numbers(each) for each in value] if isinstance(value, list) else value


def _from_gguf(model: Model) -> Mapping[str, Any]:
    architecture = architecture_from_gguf(model.architecture, model.metadata)
    try:
        return config_from_gguf(architecture, model.metadata, model.tensors)
    except ThriftbitError as error:
        raise ThriftbitError(f"{model.source}: {error}") from None
