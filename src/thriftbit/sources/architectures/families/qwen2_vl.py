"""Qwen2-VL and Qwen2.5-VL, their text parts: Qwen 2's layers, and positions in time, height and width."""

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import LARGEST_EPSILON, heads_fill_width
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.architectures.kinds import every_layer
from thriftbit.sources.architectures.llama_like import (
    ATTENTION,
    ATTENTION_NORM,
    FFN_NORM,
    GATED_FFN,
    METADATA,
    QUERY_KEY_VALUE_BIASES,
    RMS_NORM,
    SILU,
)
from thriftbit.sources.architectures.positions import sections_of_positions


def epsilon_does_not_matter(configuration: Configuration, model: Dimensions) -> str | None:
    """Return what is wrong with the epsilon of norms, None if nothing is. For this GGUF name, llama.cpp does not read
    it, and computes with zero."""
    if configuration.number("rms_norm_eps") <= LARGEST_EPSILON:
        return None
    return f"rms_norm_eps is {configuration.number('rms_norm_eps'):g}; llama.cpp computes this family with none."


ARCHITECTURE = Architecture(
    classes=("Qwen2_5_VLForConditionalGeneration", "Qwen2VLForConditionalGeneration"),
    model_types=("qwen2_5_vl", "qwen2_vl", "qwen2_5_vl_text", "qwen2_vl_text"),
    gguf_name="qwen2vl",
    layers=every_layer(ATTENTION_NORM, ATTENTION, QUERY_KEY_VALUE_BIASES, FFN_NORM, GATED_FFN),
    metadata_keys=METADATA | RMS_NORM | {"rope.dimension_sections": sections_of_positions(16, 24, 24)},
    defaults={"tie_word_embeddings": False, "rms_norm_eps": 1e-6, "use_sliding_window": False},
    fixed={"hidden_act": SILU},
    checks=(heads_fill_width, epsilon_does_not_matter),
    computed_as="qwen2",
)
