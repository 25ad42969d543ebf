"""Mistral Small 3.1 and 3.2, and Ministral 3: Llama's layers under a GGUF name of their own.

Only the text part of multimodal models is taken. Ministral 3 has YaRN, and queries that grow with the position
(`llama_4_scaling_beta`)."""

from collections.abc import Mapping
from typing import Any

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.configuration import Configuration, finite
from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.architectures.kinds import every_layer
from thriftbit.sources.architectures.llama_like import (
    ATTENTION_NORM,
    FFN_NORM,
    GATED_FFN,
    INTERLEAVED_ATTENTION,
    METADATA,
    RMS_NORM,
    SILU,
)
from thriftbit.sources.architectures.rope import yarn_settings

# Settings of YaRN that have a GGUF key of their own here
LOG_MULTIPLIER = "rope.scaling.yarn_log_multiplier"
GROWTH = "attention.temperature_scale"
YARN_KEYS = {LOG_MULTIPLIER: "mscale_all_dim", GROWTH: "llama_4_scaling_beta"}


def _yarn_number(configuration: Configuration, key: str) -> float | None:
    yarn = yarn_settings(configuration)
    return finite(yarn[key], key) if key in yarn else None


def _computed_alike(configuration: Configuration, model: Dimensions) -> str | None:
    if configuration.get("model_type") == "ministral3" and not model.has(GROWTH):
        return "a Ministral 3 without YaRN and its llama_4_scaling_beta is not something llama.cpp computes."
    yarn = yarn_settings(configuration)
    if yarn and (yarn.get("mscale") != 1 or yarn.get("mscale_all_dim") != 1 or "attention_factor" in yarn):
        return "YaRN should have an mscale and an mscale_all_dim of 1; llama.cpp computes nothing else here."
    return None


def _restored(stated: Mapping[str, Any]) -> Mapping[str, Any]:
    if LOG_MULTIPLIER not in stated:
        return {"model_type": "mistral"}
    rope = {name: stated[key] for key, name in YARN_KEYS.items() if key in stated}
    return {"model_type": "ministral3", "rope_parameters": {"mscale": 1.0, "attention_factor": None} | rope}


ARCHITECTURE = Architecture(
    classes=("Ministral3ForCausalLM", "Mistral3ForConditionalGeneration"),
    model_types=("ministral3", "mistral3"),
    gguf_name="mistral3",
    layers=every_layer(ATTENTION_NORM, INTERLEAVED_ATTENTION, FFN_NORM, GATED_FFN),
    metadata_keys=METADATA
    | RMS_NORM
    | {
        LOG_MULTIPLIER: lambda configuration: _yarn_number(configuration, "mscale_all_dim"),
        GROWTH: lambda configuration: _yarn_number(configuration, "llama_4_scaling_beta"),
        "rope.scaling.attn_factor": lambda configuration: None,  # the log multiplier implies it
    },
    restored=_restored,
    defaults={
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-5,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
    fixed={"hidden_act": SILU},
    checks=(_computed_alike,),
    rope_types=frozenset({"default", "yarn"}),
)
