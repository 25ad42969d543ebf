"""Granite 4 without recurrent layers (micro, 1b, 350m): Granite's layers, with gate and up in one matrix."""

from collections.abc import Mapping
from typing import Any

from thriftbit.sources.architectures import mamba
from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.architectures.families import granite_hybrid
from thriftbit.sources.architectures.families.granite import NO_ZERO
from thriftbit.sources.architectures.families.granite_moe import LENGTHS, layers
from thriftbit.sources.architectures.llama_like import SILU
from thriftbit.sources.architectures.rope import WITH_FACTORS


def with_positions(configuration: Configuration, model: Dimensions) -> str | None:
    if configuration.get("position_embedding_type") != "rope":
        return "position_embedding_type is not 'rope'; llama.cpp turns the heads of a Granite without recurrent layers."
    if configuration.integer("num_local_experts"):
        return "num_local_experts is not 0; of Granite 4 with experts llama.cpp has the recurrent ones."
    return None


def restored(stated: Mapping[str, Any]) -> dict[str, Any]:
    return granite_hybrid.restored(stated) | {"position_embedding_type": "rope", "num_local_experts": 0}


ARCHITECTURE = Architecture(
    classes=("GraniteMoeHybridForCausalLM",),
    model_types=("granitemoehybrid",),
    gguf_name="granite",
    applies=lambda config: not mamba.has_recurrent_layers(config),
    layers=layers,
    lengths=LENGTHS,
    metadata_keys={
        **granite_hybrid.ARCHITECTURE.metadata_keys,
        "context_length": "max_position_embeddings",
        "rope.scaling.finetuned": lambda configuration: True,
    },
    restored=restored,
    aliases=granite_hybrid.ARCHITECTURE.aliases,
    defaults=granite_hybrid.ARCHITECTURE.defaults,
    fixed={"hidden_act": SILU, "attention_bias": (False,)},
    checks=(with_positions, NO_ZERO),
    rope_types=WITH_FACTORS,
    recognised=lambda model: model.has("rope.scaling.finetuned"),
)
