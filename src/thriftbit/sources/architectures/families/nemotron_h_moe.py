"""Nemotron 3 Nano and Super: Nemotron-H with experts, which in Super work on a narrower copy of the hidden
states."""

from collections.abc import Callable, Mapping
from typing import Any

from thriftbit.sources.architectures import mamba
from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import some_layer_is_recurrent
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.architectures.families import nemotron_h
from thriftbit.sources.architectures.keys import Setting
from thriftbit.sources.architectures.kinds import Kind, layer_of, named_at_source
from thriftbit.sources.architectures.rows import layer, norm

LATENT = (
    layer("mixer.fc1_latent_proj.weight", "ffn_latent_down.weight", "expert_input width"),
    layer("mixer.fc2_latent_proj.weight", "ffn_latent_up.weight", "width expert_input"),
)
EXPERTS = (
    layer("mixer.gate.weight", "ffn_gate_inp.weight", "experts width"),
    layer("mixer.gate.e_score_correction_bias", "exp_probs_b.bias", "experts"),
    layer(
        "mixer.experts.up_proj",
        "ffn_up_exps.weight",
        "experts expert_ffn expert_input",
        spellings=(("mixer.experts.{expert}.up_proj.weight",),),
    ),
    layer(
        "mixer.experts.down_proj",
        "ffn_down_exps.weight",
        "experts expert_input expert_ffn",
        spellings=(("mixer.experts.{expert}.down_proj.weight",),),
    ),
    layer("mixer.shared_experts.up_proj.weight", "ffn_up_shexp.weight", "shared_ffn width"),
    layer("mixer.shared_experts.down_proj.weight", "ffn_down_shexp.weight", "width shared_ffn"),
)


# The layer that guesses ahead is two in a checkpoint, attention and experts, and one in the file.
AHEAD_ATTENTION, AHEAD_EXPERTS = "mtp.layers.0.", "mtp.layers.1."
JOINING = Kind(
    (
        layer("eh_proj.weight", "nextn.eh_proj.weight", "width double_width"),
        norm("enorm", "nextn.enorm"),
        norm("hnorm", "nextn.hnorm"),
    )
)
BEHIND = Kind((norm("norm", "post_attention_norm"), norm("final_layernorm", "nextn.shared_head_norm")))


def layers(model: Dimensions) -> list[Kind]:
    experts = Kind((*EXPERTS, *LATENT) if model.has("moe_latent_size") else EXPERTS)
    ahead = layer_of(
        named_at_source(layer_of(JOINING, nemotron_h.NORM, nemotron_h.ATTENTION), AHEAD_ATTENTION),
        named_at_source(layer_of(BEHIND, experts), AHEAD_EXPERTS),
    )
    return [*nemotron_h.layers_with(experts)(model), *[ahead] * model.next_token_layers]


def with_layer_ahead(listed: Callable[[Configuration], list[int]], setting: str) -> Setting:
    """Return the GGUF list with an entry for the layer that guesses ahead, if there is one."""

    def all_layers(configuration: Configuration) -> list[int]:
        ahead = min(1, configuration.integer("num_nextn_predict_layers"))
        return [*listed(configuration), *[configuration.integer(setting)] * ahead]

    return all_layers


def restored(stated: Mapping[str, Any]) -> dict[str, Any]:
    return nemotron_h.restored(stated) | {
        "moe_latent_size": stated.get("moe_latent_size"),
        "norm_topk_prob": stated.get("expert_weights_norm", False),
    }


ARCHITECTURE = Architecture(
    classes=("NemotronHForCausalLM",),
    model_types=("nemotron_h",),
    gguf_name="nemotron_h_moe",
    applies=nemotron_h.has_experts,
    before=nemotron_h.BEFORE,
    layers=layers,
    after=nemotron_h.AFTER,
    lengths={
        **mamba.LENGTHS,
        "expert_input": lambda model: model.number("moe_latent_size", model.width),
        "double_width": lambda model: 2 * model.width,
        "shared_ffn": lambda model: model.number("expert_shared_feed_forward_length"),
    },
    metadata_keys=nemotron_h.METADATA_KEYS
    | {
        "attention.head_count_kv": with_layer_ahead(mamba.key_value_heads("layer_types"), "num_key_value_heads"),
        "feed_forward_length": with_layer_ahead(nemotron_h.widths("moe_intermediate_size"), "moe_intermediate_size"),
        "expert_feed_forward_length": "moe_intermediate_size",
        "expert_shared_feed_forward_length": "moe_shared_expert_intermediate_size",
        "expert_count": "n_routed_experts",
        "expert_used_count": "num_experts_per_tok",
        "expert_shared_count": "n_shared_experts",
        "expert_weights_norm": "norm_topk_prob",
        "expert_weights_scale": "routed_scaling_factor",
        "expert_group_count": "n_group",
        "expert_group_used_count": "topk_group",
    },
    optional_metadata_keys={"moe_latent_size": "moe_latent_size"},
    restored=restored,
    aliases=nemotron_h.ALIASES,
    defaults=nemotron_h.DEFAULTS
    | {"n_shared_experts": 1, "norm_topk_prob": True, "routed_scaling_factor": 1.0, "n_group": 1, "topk_group": 1}
    | {"num_nextn_predict_layers": 0},
    fixed=nemotron_h.FIXED | {"n_shared_experts": (1,), "n_group": (1,), "topk_group": (1,)},
    checks=(nemotron_h.one_kind_of_ffn, some_layer_is_recurrent(*mamba.RECURRENT)),
    notes=nemotron_h.smallest_step,
    rope_types=None,
    next_token_key="num_nextn_predict_layers",
    most_next_token_layers=1,
    prefixes={"backbone.": "model."},
)
