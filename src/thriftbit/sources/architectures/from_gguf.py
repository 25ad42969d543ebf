"""The way back from a GGUF's metadata to a config.json, for models of which only the GGUF is there.

A GGUF says less than a config.json, but it has all that llama.cpp computes with. The family's table has the rest. So
the configuration is put together from the two. It is then checked: mapped to metadata again, it must give the keys of
the file. If it does not, the original's folder is needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from thriftbit.containers.gguf_values import Metadata, MetadataValue
from thriftbit.errors import ThriftbitError
from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.dimensions import dimensions_of
from thriftbit.sources.architectures.rope import (
    FREQUENCIES,
    LONG_FACTORS,
    PROPORTIONAL,
    SHORT_FACTORS,
    STANDING_STILL,
    YARN_BOUNDS,
    yarn_scale,
)
from thriftbit.sources.architectures.rows import OUTPUT
from thriftbit.sources.tensor import Tensor

# A GGUF holds only the effect of Llama 3's scaling on each frequency. All published models have these settings, except
# Llama 4, which blends no frequencies.
LLAMA3_SETTINGS = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def config_from_gguf(architecture: Architecture, metadata: Metadata, tensors: Iterable[Tensor]) -> dict[str, Any]:
    """Return the content of a config.json for which `architecture.metadata` gives the keys in `metadata`.

    Raises ThriftbitError where the file does not say enough."""
    by_name = {tensor.name: tensor for tensor in tensors}
    dimensions_of(architecture.gguf_name, metadata, architecture.lengths)
    stated = {key.removeprefix(f"{architecture.gguf_name}."): _plain(value) for key, value in metadata.items()}
    config: dict[str, Any] = {name: value for name, value in architecture.defaults.items() if not callable(value)}
    config |= {name: values[0] for name, values in architecture.fixed.items()}
    config |= {"model_type": architecture.model_types[0], "architectures": [architecture.classes[0]]}
    config["tie_word_embeddings"] = OUTPUT not in by_name
    for key, name in (*architecture.metadata_keys.items(), *architecture.optional_metadata_keys.items()):
        if key in stated and isinstance(name, str):
            config[name] = stated[key]
    if "rope.scaling.original_context_length" in stated:  # transformers looks here for LongRoPE's value, too
        config["original_max_position_embeddings"] = stated["rope.scaling.original_context_length"]
    config["sliding_window"] = config.get("sliding_window") or None  # 0 tells llama.cpp that there is none
    if architecture.next_token_key:
        ahead = stated.get("nextn_predict_layers", 0)
        config[architecture.next_token_key] = ahead
        config["num_hidden_layers"] = stated["block_count"] - ahead
    config |= (restored := architecture.restored({**stated, "tensors": frozenset(by_name)}))
    for entry in architecture.entries(architecture.dimensions(metadata)):
        if entry.row.when:
            config[entry.row.when] = bool(config.get(entry.row.when)) or entry.targets[0] in by_name
    if architecture.rope_types is not None:
        config.pop("rope_theta", None)
        config["rope_parameters"] = _rope_parameters(stated, config, by_name) | restored.get("rope_parameters", {})
    if "query_pre_attn_scalar" in config:
        config["query_pre_attn_scalar"] = _query_scale(architecture, config)
    config |= {old: config[modern] for old, modern in architecture.aliases.items() if modern in config}
    _prove(architecture, config, metadata)
    return config


def _rope_parameters(stated: Mapping[str, Any], config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    scaling = stated.get("rope.scaling.type", "none")
    parameters: dict[str, Any] = {"rope_type": "default" if scaling == "none" else scaling}
    parameters["rope_theta"] = stated.get("rope.freq_base", 10000.0)
    if "rope.dimension_count" in stated and config.get("head_dim"):
        parameters["partial_rotary_factor"] = stated["rope.dimension_count"] / config["head_dim"]
    if parameters["rope_type"] in ("linear", "yarn"):
        parameters["factor"] = stated.get("rope.scaling.factor")
    if "rope.scaling.original_context_length" in stated:
        parameters["original_max_position_embeddings"] = stated["rope.scaling.original_context_length"]
    if "rope.dimension_sections" in stated:
        parameters["mrope_section"] = stated["rope.dimension_sections"][:3]
    for key, name in YARN_BOUNDS.items():
        if key in stated:
            parameters[name] = stated[key]
    if parameters["rope_type"] == "yarn":
        magnitude = yarn_scale(parameters["factor"], 1.0)
        parameters["attention_factor"] = magnitude * stated.get("rope.scaling.attn_factor", 1.0)
    if LONG_FACTORS in tensors and SHORT_FACTORS in tensors:
        parameters["rope_type"] = "longrope"
        parameters["attention_factor"] = stated.get("rope.scaling.attn_factor", 1.0)
        parameters["long_factor"] = tensors[LONG_FACTORS].load()[0].tolist()
        parameters["short_factor"] = tensors[SHORT_FACTORS].load()[0].tolist()
    if FREQUENCIES in tensors and float(tensors[FREQUENCIES].load().max()) >= STANDING_STILL:
        turning = float((tensors[FREQUENCIES].load() < STANDING_STILL).mean())
        parameters |= {"rope_type": PROPORTIONAL, "partial_rotary_factor": turning}
    elif FREQUENCIES in tensors:
        divisors = tensors[FREQUENCIES].load()
        factor = float(divisors.max())
        parameters |= {"rope_type": "llama3", "factor": factor} | LLAMA3_SETTINGS
        if np.isin(divisors, (1.0, factor)).all():  # nothing is blended
            parameters["high_freq_factor"] = parameters["low_freq_factor"]
    if "rope.freq_base_swa" in stated:
        sliding = {"rope_type": "default", "rope_theta": stated["rope.freq_base_swa"]}
        return {"full_attention": parameters, "sliding_attention": sliding}
    return parameters


def _query_scale(architecture: Architecture, config: Mapping[str, Any]) -> int:
    """Return the value by that one of Gemma's two rules that the family's own check accepts."""
    by_width = config["hidden_size"] // config["num_attention_heads"]
    try:
        architecture.metadata({**config, "query_pre_attn_scalar": by_width})
    except ThriftbitError:
        return int(config["head_dim"])
    return int(by_width)


def _prove(architecture: Architecture, config: Mapping[str, Any], metadata: Metadata) -> None:
    for key, value in architecture.metadata(config).items():
        if key in metadata and not _same(_plain(metadata[key]), _plain(value)):
            raise ThriftbitError(
                f"the GGUF says {key} is {metadata[key]}, from which no configuration follows; "
                "give the original model's folder"
            )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_same(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, list) or isinstance(other, list):  # one number for all layers equals a list that repeats it
        each, single = (one, other) if isinstance(one, list) else (other, one)
        return all(_same(value, single) for value in each)
    return bool(np.isclose(one, other, rtol=1e-5)) if isinstance(other, float) else bool(one == other)


def _plain(value: MetadataValue) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value
