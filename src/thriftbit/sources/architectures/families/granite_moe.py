"""Granite 3 with experts, and models of Granite 4 with experts and without recurrent layers."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.dimensions import Dimensions, Length
from thriftbit.sources.architectures.families.granite import MULTIPLIERS, MULTIPLIERS_OF_ONE, NO_ZERO
from thriftbit.sources.architectures.keys import Setting
from thriftbit.sources.architectures.kinds import Kind, layer_of
from thriftbit.sources.architectures.llama_like import (
    ATTENTION_NORM,
    FFN_NORM,
    GATE_UP_EXPERTS,
    GATES_AND_UPS,
    INTERLEAVED_ATTENTION,
    METADATA,
    RMS_NORM,
    SILU,
)
from thriftbit.sources.architectures.rope import WITH_FACTORS
from thriftbit.sources.architectures.rows import layer
from thriftbit.sources.architectures.transforms import split

MODULE = "block_sparse_moe"
EXPERTS = Kind(
    (
        layer(
            f"{MODULE}.router.weight",
            "ffn_gate_inp.weight",
            "experts width",
            spellings=((f"{MODULE}.router.layer.weight",),),
        ),
        layer(
            f"{MODULE}.experts.gate_up_proj",
            GATES_AND_UPS,
            "experts expert_gate_up width",
            GATE_UP_EXPERTS,
            spellings=((f"{MODULE}.input_linear.weight",),),
        ),
        layer(
            f"{MODULE}.experts.down_proj",
            "ffn_down_exps.weight",
            "experts width expert_ffn",
            spellings=((f"{MODULE}.output_linear.weight",),),
        ),
    )
)


def shared(suffix: str, width: str) -> Kind:
    """Return the feed-forward network that every token uses. In models without experts it is the only one."""
    return Kind(
        (
            layer(
                "shared_mlp.input_linear.weight",
                (f"ffn_gate{suffix}.weight", f"ffn_up{suffix}.weight"),
                f"two_{width} width",
                split(f"{width} {width}"),
            ),
            layer("shared_mlp.output_linear.weight", f"ffn_down{suffix}.weight", f"width {width}"),
        )
    )


def feed_forward(model: Dimensions) -> Kind:
    if not model.experts:
        return layer_of(FFN_NORM, shared("", "ffn"))
    more = [shared("_shexp", "shared_ffn")] if model.has("expert_shared_feed_forward_length") else []
    return layer_of(FFN_NORM, EXPERTS, *more)


def width_of_ffn(configuration: Configuration) -> int:
    experts = configuration.integer("num_local_experts")
    return configuration.integer("intermediate_size" if experts else "shared_intermediate_size")


def layers(model: Dimensions) -> list[Kind]:
    return [layer_of(ATTENTION_NORM, INTERLEAVED_ATTENTION, feed_forward(model))] * model.layers


LENGTHS: dict[str, Length] = {
    "two_ffn": lambda model: 2 * model.ffn,
    "shared_ffn": lambda model: model.number("expert_shared_feed_forward_length"),
    "two_shared_ffn": lambda model: 2 * model.number("expert_shared_feed_forward_length"),
}
EXPERTS_METADATA: dict[str, Setting] = {
    "feed_forward_length": width_of_ffn,
    "expert_count": "num_local_experts",
    "expert_used_count": lambda configuration: (
        configuration.integer("num_experts_per_tok") if configuration.integer("num_local_experts") else 0
    ),
    "expert_shared_feed_forward_length": lambda configuration: (
        configuration.integer("shared_intermediate_size") if configuration.get("shared_intermediate_size") else None
    ),
}

ARCHITECTURE = Architecture(
    classes=("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"),
    model_types=("granitemoe", "granitemoeshared"),
    gguf_name="granitemoe",
    layers=layers,
    lengths=LENGTHS,
    metadata_keys=METADATA | RMS_NORM | MULTIPLIERS | EXPERTS_METADATA,
    restored=lambda stated: {
        "intermediate_size": stated["feed_forward_length"],
        "shared_intermediate_size": stated.get("expert_shared_feed_forward_length", 0),
        "model_type": "granitemoeshared" if "expert_shared_feed_forward_length" in stated else "granitemoe",
    },
    defaults=MULTIPLIERS_OF_ONE
    | {"tie_word_embeddings": False, "rms_norm_eps": 1e-6, "num_local_experts": 8, "num_experts_per_tok": 2},
    checks=(NO_ZERO,),
    fixed={"hidden_act": SILU, "attention_bias": (False,)},
    rope_types=WITH_FACTORS,
)
