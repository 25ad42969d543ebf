"""EXAONE 4: norms after attention and feed-forward network, and a sliding window in three layers of four. Layers
without a window have no rotary embedding."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import heads_fill_width
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.architectures.keys import kinds_of_layers
from thriftbit.sources.architectures.kinds import by_flag, layer_of, sliding
from thriftbit.sources.architectures.llama_like import ATTENTION, GATED_FFN, METADATA, QUERY_KEY_NORMS, RMS_NORM, SILU
from thriftbit.sources.architectures.rope import WITH_FACTORS
from thriftbit.sources.architectures.rows import norm

PATTERN = "attention.sliding_window_pattern"
LAYER = layer_of(
    ATTENTION,
    QUERY_KEY_NORMS,
    norm("post_attention_layernorm", "post_attention_norm"),
    GATED_FFN,
    norm("post_feedforward_layernorm", "post_ffw_norm"),
)


def windowed_if_deep(configuration: Configuration, model: Dimensions) -> str | None:
    """Return what is wrong with sliding windows, None if nothing is. llama.cpp recognises the model with sliding
    windows by its 64 layers."""
    windowed = bool(configuration.get("sliding_window"))
    if windowed == (model.layers == 64):
        if windowed and "sliding_attention" not in (configuration.get("layer_types") or ()):
            return "layer_types has no 'sliding_attention', without which llama.cpp does not run models of 64 layers."
        return None
    only = "only" if windowed else "always"
    return f"llama.cpp has sliding windows {only} in models of 64 layers, and this one has {model.layers}."


ARCHITECTURE = Architecture(
    classes=("Exaone4ForCausalLM",),
    model_types=("exaone4",),
    gguf_name="exaone4",
    layers=by_flag(PATTERN, sliding(LAYER), others=LAYER),
    metadata_keys=METADATA | RMS_NORM,
    optional_metadata_keys={
        "attention.sliding_window": "sliding_window",
        PATTERN: lambda configuration: (
            kinds_of_layers("layer_types", is_kind="sliding_attention")(configuration)
            if configuration.get("sliding_window")
            else None
        ),
    },
    restored=lambda stated: {
        "layer_types": [
            "sliding_attention" if slides else "full_attention"
            for slides in stated.get(PATTERN, [False] * stated["block_count"])
        ]
    },
    defaults={"tie_word_embeddings": False, "rms_norm_eps": 1e-5},
    fixed={"hidden_act": SILU},
    checks=(heads_fill_width, windowed_if_deep),
    rope_types=WITH_FACTORS,
)
