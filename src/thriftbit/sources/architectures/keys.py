"""GGUF's typed values from settings of a configuration.

A family's table names, for each GGUF key, a setting of config.json or a function that computes the value. Numbers,
flags, texts and lists of them take the GGUF type that llama.cpp's converter gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from thriftbit.containers.gguf_values import MetadataValue
from thriftbit.errors import ThriftbitError
from thriftbit.sources.architectures.configuration import Configuration

# A configuration key, or a function that computes the value: None leaves the key out.
Value = bool | int | float | str | Sequence[bool] | Sequence[int] | Sequence[float] | None
Setting = str | Callable[[Configuration], Value]

# GGUF values are typed. These keys are not whole numbers, if they are one setting.
FLOAT_KEYS = frozenset(
    {
        "attention.layer_norm_epsilon",
        "attention.layer_norm_rms_epsilon",
        "attention.scale",
        "attn_logit_softcapping",
        "embedding_scale",
        "expert_weights_scale",
        "final_logit_softcapping",
        "logit_scale",
        "residual_scale",
    }
)
FLAG_KEYS = frozenset({"use_parallel_residual", "expert_weights_norm"})


def metadata_value(key: str, setting: Setting, configuration: Configuration) -> MetadataValue | None:
    """Return the value with its GGUF type; None if the setting's function gives none. Raises ThriftbitError for a
    setting that is missing or not of the key's type."""
    if callable(setting):
        return _typed(key, setting(configuration))
    if key in FLAG_KEYS:
        return configuration.flag(setting)
    if key in FLOAT_KEYS:
        return np.float32(configuration.number(setting))
    return np.uint32(configuration.integer(setting))


def _typed(key: str, value: Any) -> MetadataValue | None:
    if value is None or isinstance(value, bool | str):
        return value
    try:
        if isinstance(value, int):
            return np.uint32(value)
        if isinstance(value, float):
            return np.float32(value)
        kinds = {type(each) for each in value}
        dtype = np.dtype(np.bool_ if kinds == {bool} else np.float32 if float in kinds else np.int32)
        return np.array(value, dtype)
    except (OverflowError, ValueError, TypeError):
        raise ThriftbitError(f"config.json: GGUF's {key} cannot be {value!r}.") from None


def kinds_of_layers(name: str, *, is_kind: str) -> Callable[[Configuration], list[bool]]:
    """Return a function that says of each layer whether it is of this kind by the list `name` ("layer_types")."""

    def flags(configuration: Configuration) -> list[bool]:
        return [kind == is_kind for kind in configuration.listed(name, configuration.integer("num_hidden_layers"))]

    return flags
