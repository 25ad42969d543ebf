"""Command R and Aya: attention and feed-forward network in parallel, after one layer norm."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import heads_fill_width
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.architectures.kinds import Kind, every_layer, layer_of
from thriftbit.sources.architectures.llama_like import (
    ATTENTION,
    ATTENTION_NORM,
    GATED_FFN,
    LAYER_NORM,
    METADATA,
    SILU,
)
from thriftbit.sources.architectures.rows import norm

# Command R+ normalises queries and keys, each head with its own weights.
QUERY_KEY_NORMS = Kind(
    (
        norm("self_attn.q_norm", "attn_q_norm", "heads head", when="use_qk_norm"),
        norm("self_attn.k_norm", "attn_k_norm", "key_value_heads head", when="use_qk_norm"),
    )
)


def normalised_if_deep(configuration: Configuration, model: Dimensions) -> str | None:
    """Return what is wrong with norms of queries and keys, None if nothing is. llama.cpp recognises Command R+, which
    has them, by its 64 layers."""
    if configuration.flag("use_qk_norm") == (model.layers >= 64):
        return None
    return "llama.cpp normalises queries and keys in models of 64 layers or more, and in no others."


ARCHITECTURE = Architecture(
    classes=("CohereForCausalLM",),
    model_types=("cohere",),
    gguf_name="command-r",
    layers=every_layer(layer_of(ATTENTION_NORM, ATTENTION, QUERY_KEY_NORMS, GATED_FFN)),
    metadata_keys=METADATA
    | LAYER_NORM
    | {
        # Configurations of Command R say 8192 here, but the model was trained for "model_max_length".
        "context_length": lambda configuration: configuration.integer(
            "model_max_length" if configuration.get("model_max_length") else "max_position_embeddings"
        ),
        "logit_scale": "logit_scale",
        "rope.scaling.type": lambda configuration: "none",
    },
    restored=lambda stated: {"max_position_embeddings": stated["context_length"]},
    defaults={"tie_word_embeddings": True, "layer_norm_eps": 1e-5, "logit_scale": 0.0625, "use_qk_norm": False},
    fixed={"hidden_act": SILU, "attention_bias": (False,), "use_qk_norm": (False, True)},
    checks=(heads_fill_width, normalised_if_deep),
    rope_types=frozenset({"default"}),
    untied=False,
)
