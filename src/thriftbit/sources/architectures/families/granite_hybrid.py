"""Granite 4: Mamba-2 in most layers, attention without positions in a few, routed experts and a shared one."""

from collections.abc import Mapping
from typing import Any

from thriftbit.sources.architectures import mamba
from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.architectures.families.granite import MULTIPLIERS, MULTIPLIERS_OF_ONE, NO_ZERO
from thriftbit.sources.architectures.families.granite_moe import (
    EXPERTS_METADATA,
    LENGTHS,
    feed_forward,
    width_of_ffn,
)
from thriftbit.sources.architectures.kinds import Kind, layer_of
from thriftbit.sources.architectures.llama_like import ATTENTION_NORM, INTERLEAVED_ATTENTION, METADATA, RMS_NORM, SILU


def layers(model: Dimensions) -> list[Kind]:
    ffn = feed_forward(model)
    kinds = {
        True: layer_of(ATTENTION_NORM, INTERLEAVED_ATTENTION, ffn),
        False: layer_of(ATTENTION_NORM, mamba.state_space("mamba", "mamba_conv_bias"), ffn),
    }
    return [kinds[mamba.attends(model, number)] for number in range(model.layers)]


def without_positions(configuration: Configuration, model: Dimensions) -> str | None:
    if configuration.get("position_embedding_type") == "rope":
        return "position_embedding_type is 'rope'; llama.cpp computes this family without positions."
    inner = configuration.integer("mamba_expand") * model.width
    if inner != 2 * model.width or inner != model.length("state_heads") * configuration.integer("mamba_d_head"):
        return "mamba_n_heads times mamba_d_head should be twice the hidden size, as llama.cpp takes it to be."
    return None


def restored(stated: Mapping[str, Any]) -> dict[str, Any]:
    return mamba.restored(stated) | {
        "mamba_d_head": stated["ssm.inner_size"] // stated["ssm.time_step_rank"],
        "max_position_embeddings": stated["context_length"],
        "intermediate_size": stated["feed_forward_length"],
        "shared_intermediate_size": stated.get("expert_shared_feed_forward_length", stated["feed_forward_length"]),
    }


ARCHITECTURE = Architecture(
    classes=("GraniteMoeHybridForCausalLM",),
    model_types=("granitemoehybrid",),
    gguf_name="granitehybrid",
    applies=mamba.has_recurrent_layers,
    layers=layers,
    lengths={**LENGTHS, **mamba.LENGTHS},
    metadata_keys=METADATA
    | RMS_NORM
    | MULTIPLIERS
    | EXPERTS_METADATA
    | {
        "context_length": lambda configuration: mamba.LONGEST_TEXT,
        "feed_forward_length": width_of_ffn,
        "attention.head_count_kv": mamba.key_value_heads("layer_types"),
        "ssm.conv_kernel": "mamba_d_conv",
        "ssm.state_size": "mamba_d_state",
        "ssm.group_count": "mamba_n_groups",
        "ssm.inner_size": lambda configuration: 2 * configuration.integer("hidden_size"),
        "ssm.time_step_rank": "mamba_n_heads",
        "rope.scaling.finetuned": lambda configuration: False,
    },
    restored=restored,
    aliases={"layers_block_type": "layer_types"},
    defaults=MULTIPLIERS_OF_ONE
    | {
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-6,
        "mamba_d_conv": 4,
        "mamba_d_state": 256,
        "mamba_n_groups": 1,
        "mamba_n_heads": 128,
        "mamba_expand": 2,
        "mamba_d_head": lambda configuration: (
            2 * configuration.integer("hidden_size") // max(1, configuration.integer("mamba_n_heads"))
        ),
        "mamba_conv_bias": True,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 1024,
    },
    fixed={
        "hidden_act": SILU,
        "attention_bias": (False,),
        "mamba_n_groups": (1,),
        "mamba_proj_bias": (False,),
        "mamba_conv_bias": (True,),
    },
    checks=(without_positions, NO_ZERO, mamba.steps_are_not_limited),
    rope_types=frozenset({"default"}),  # written by llama.cpp's converter as well, and not used
)
