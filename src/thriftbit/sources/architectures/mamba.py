"""Mamba-2, the state-space layers of Granite 4, Nemotron-H and Falcon-H1.

llama.cpp takes decay rates themselves and not their logarithms, vectors of heads as columns, and the norm group by
group. Source: arXiv 2405.21060."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from thriftbit.errors import shown
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.dimensions import Dimensions, Length
from thriftbit.sources.architectures.kinds import Kind
from thriftbit.sources.architectures.layer_cache import state_space_cache
from thriftbit.sources.architectures.rows import layer, norm
from thriftbit.sources.architectures.transforms import MINUS_EXP, reshape

LENGTHS: Mapping[str, Length] = {
    "inner": lambda model: model.number("ssm.inner_size"),
    "state_heads": lambda model: model.number("ssm.time_step_rank"),
    "state_groups": lambda model: model.number("ssm.group_count"),
    "inner_of_group": lambda model: model.length("inner") // model.length("state_groups"),
    "kernel": lambda model: model.number("ssm.conv_kernel"),
    "convolved": lambda model: (
        model.length("inner") + 2 * model.length("state_groups") * model.number("ssm.state_size")
    ),
    "gate_input_and_step": lambda model: (
        model.length("inner") + model.length("convolved") + model.length("state_heads")
    ),
}
_COLUMN = reshape("state_heads 1")
_NORM = reshape("state_groups inner_of_group")
LONGEST_TEXT = 2**20  # llama.cpp's converter writes this for a model without positions
# Kinds of layers in a configuration's list, as older and newer releases of transformers name them
RECURRENT = ("mamba", "linear_attention")
ATTENDING = ("attention", "full_attention")


def state_space(module: str, bias_when: str, *, norm_when: str = "", multiplied: tuple[str, str] = ("", "")) -> Kind:
    """Return the kind of a state-space layer.

    module: the layer's. bias_when, norm_when: the settings that say whether there is a bias of the convolution, a norm.
    multiplied: the settings that the first and the last matrix are multiplied by, "" for none."""
    return Kind(
        (
            layer(f"{module}.in_proj.weight", "ssm_in.weight", "gate_input_and_step width", multiplied=multiplied[0]),
            layer(f"{module}.conv1d.weight", "ssm_conv1d.weight", "convolved 1 kernel", reshape("convolved kernel")),
            layer(f"{module}.conv1d.bias", "ssm_conv1d.bias", "convolved", when=bias_when),
            layer(f"{module}.dt_bias", "ssm_dt.bias", "state_heads"),
            layer(f"{module}.A_log", "ssm_a", "state_heads", MINUS_EXP.then(_COLUMN)),
            layer(f"{module}.D", "ssm_d", "state_heads", _COLUMN),
            norm(f"{module}.norm", "ssm_norm", "inner", _NORM, when=norm_when),
            layer(f"{module}.out_proj.weight", "ssm_out.weight", "width inner", multiplied=multiplied[1]),
        ),
        state_space_cache,
    )


def steps_are_not_limited(configuration: Configuration, model: Dimensions) -> str | None:
    limits = configuration.get("time_step_limit")
    if limits is None or (isinstance(limits, list) and len(limits) == 2 and limits[0] == 0 and _is_infinite(limits[1])):
        return None
    return f"time_step_limit is {shown(limits)}, and llama.cpp does not limit time steps."


def _is_infinite(value: Any) -> bool:
    """Return whether a configuration's number is infinite. transformers writes it as {"__float__": "Infinity"}."""
    return value in (float("inf"), {"__float__": "Infinity"})


def attends(model: Dimensions, layer: int) -> bool:
    """Return whether a layer of a hybrid model has attention, which means heads for keys and values."""
    return model.at(layer).number("attention.head_count_kv", least=0) > 0


def kinds_of_layers(config: Mapping[str, Any], key: str = "layer_types") -> list[Any]:
    """Return the configuration's list as it is parsed; [] if there is none. For transformers, all layers are recurrent
    then."""
    text = config.get("text_config")
    values = {**config, **text} if isinstance(text, Mapping) else config
    kinds = values.get(key) or values.get("layers_block_type")
    return kinds if isinstance(kinds, list) else []


def has_recurrent_layers(config: Mapping[str, Any]) -> bool:
    kinds = kinds_of_layers(config)
    return not kinds or any(kind in RECURRENT for kind in kinds)


def key_value_heads(setting: str) -> Callable[[Configuration], list[int]]:
    """Return the GGUF list with each layer's number of heads for keys and values, 0 for a layer without attention."""

    def heads(configuration: Configuration) -> list[int]:
        kinds = configuration.listed(setting, configuration.integer("num_hidden_layers"))
        return [configuration.integer("num_key_value_heads") if kind in ATTENDING else 0 for kind in kinds]

    return heads


def restored(stated: Mapping[str, Any]) -> dict[str, Any]:
    heads = [int(shared) for shared in stated["attention.head_count_kv"]]
    return {
        "layer_types": ["full_attention" if shared else "linear_attention" for shared in heads],
        "num_key_value_heads": max(heads),
    }
