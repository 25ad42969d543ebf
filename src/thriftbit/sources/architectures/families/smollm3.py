"""SmolLM 3: Llama, but every fourth layer has no position embedding."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.configuration import Configuration
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


def every_fourth_layer_without_rope(configuration: Configuration, dimensions: Dimensions) -> str | None:
    """Return what is wrong with the layers without rotary embeddings, None if nothing is. llama.cpp has the period of
    four built in."""
    expected = [int((layer + 1) % 4 != 0) for layer in range(dimensions.layers)]
    if (
        configuration.get("no_rope_layers", expected) == expected
        and configuration.get("no_rope_layer_interval", 4) == 4
    ):
        return None
    return "no_rope_layers is not every fourth layer, which is what llama.cpp's smollm3 computes."


ARCHITECTURE = Architecture(
    classes=("SmolLM3ForCausalLM",),
    model_types=("smollm3",),
    gguf_name="smollm3",
    layers=every_layer(ATTENTION_NORM, INTERLEAVED_ATTENTION, FFN_NORM, GATED_FFN),
    metadata_keys=METADATA | RMS_NORM,
    defaults={"tie_word_embeddings": True, "rms_norm_eps": 1e-6, "rope_theta": 2e6, "use_sliding_window": False},
    fixed={"hidden_act": SILU, "use_sliding_window": (False,)},
    checks=(every_fourth_layer_without_rope,),
)
