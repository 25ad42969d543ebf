"""Hunyuan, dense: Llama's layers with queries and keys that are normalised after rotation."""

from collections.abc import Mapping
from typing import Any

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.configuration import Configuration, positive
from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.architectures.keys import Setting, Value
from thriftbit.sources.architectures.kinds import Kind, every_layer
from thriftbit.sources.architectures.llama_like import (
    ATTENTION,
    ATTENTION_NORM,
    FFN_NORM,
    GATED_FFN,
    METADATA,
    RMS_NORM,
    SILU,
)
from thriftbit.sources.architectures.rope import PLAIN, Rope
from thriftbit.sources.architectures.rows import norm

QUERY_KEY_NORMS = Kind(
    (
        norm("self_attn.query_layernorm", "attn_q_norm", "head"),
        norm("self_attn.key_layernorm", "attn_k_norm", "head"),
    )
)

STRETCHED_CONTEXT = 256 * 1024  # tokens: the context of models with an `alpha`, whatever config.json says


def _alpha(configuration: Configuration) -> float | None:
    """Return the factor by which a larger rotary base stretches positions, None for models without it."""
    rope = configuration.get("rope_parameters") or configuration.get("rope_scaling") or {}
    if not isinstance(rope, Mapping) or rope.get("rope_type", rope.get("type")) != "dynamic" or not rope.get("alpha"):
        return None
    return positive(rope["alpha"], "alpha")


def _base(configuration: Configuration) -> float:
    rope, alpha = Rope(configuration, PLAIN), _alpha(configuration)
    return rope.base if alpha is None else rope.base * alpha ** (rope.rotary / (rope.rotary - 2))


def _where_stretched(value: int | str, otherwise: str = "") -> Setting:
    def found(configuration: Configuration) -> Value:
        return value if _alpha(configuration) else configuration.integer(otherwise) if otherwise else None

    return found


POSITIONS: dict[str, Setting] = {
    "context_length": _where_stretched(STRETCHED_CONTEXT, "max_position_embeddings"),
    "rope.freq_base": _base,
    "rope.scaling.type": _where_stretched("none"),
    "rope.scaling.factor": lambda configuration: 1.0 if _alpha(configuration) else None,
    "rope.scaling.original_context_length": _where_stretched(STRETCHED_CONTEXT),
}


def scaling_has_an_alpha(configuration: Configuration, model: Dimensions) -> str | None:
    dynamic = Rope(configuration, PLAIN).kind == "dynamic"
    return "rope_scaling is dynamic and has no alpha." if dynamic and not _alpha(configuration) else None


def restored(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return no settings of scaling, because the larger base already contains it."""
    return {
        "max_position_embeddings": stated["context_length"],
        "original_max_position_embeddings": None,
        "rope_parameters": {"rope_type": "default"},
    }


ARCHITECTURE = Architecture(
    classes=("HunYuanDenseV1ForCausalLM",),
    model_types=("hunyuan_v1_dense",),
    gguf_name="hunyuan-dense",
    layers=every_layer(ATTENTION_NORM, ATTENTION, QUERY_KEY_NORMS, FFN_NORM, GATED_FFN),
    metadata_keys=METADATA | RMS_NORM | POSITIONS,
    restored=restored,
    defaults={"tie_word_embeddings": False, "rms_norm_eps": 1e-5},
    fixed={"hidden_act": SILU, "attention_bias": (False,)},
    checks=(scaling_has_an_alpha,),
    rope_types=frozenset({"default", "dynamic"}),
)
