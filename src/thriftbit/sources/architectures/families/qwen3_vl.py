"""Qwen3-VL, its text part: Qwen 3's layers, and positions in time, height and width."""

from collections.abc import Mapping

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.keys import Setting
from thriftbit.sources.architectures.kinds import every_layer
from thriftbit.sources.architectures.llama_like import (
    ATTENTION,
    ATTENTION_NORM,
    FFN_NORM,
    GATED_FFN,
    METADATA,
    QUERY_KEY_NORMS,
    RMS_NORM,
    SILU,
)
from thriftbit.sources.architectures.positions import all_frequencies_turn, sections_of_positions

SECTIONS = sections_of_positions(24, 20, 20)


def layers_that_pictures_enter(configuration: Configuration) -> int:
    vision = configuration.get("vision_config")
    indexes = vision.get("deepstack_visual_indexes") if isinstance(vision, Mapping) else None
    return len(indexes) if isinstance(indexes, list) else 0


POSITIONS: dict[str, Setting] = {
    "rope.dimension_sections": SECTIONS,
    "n_deepstack_layers": layers_that_pictures_enter,
}


def restored(stated: Mapping[str, int]) -> dict[str, object]:
    return {"vision_config": {"deepstack_visual_indexes": list(range(stated.get("n_deepstack_layers", 0)))}}


ARCHITECTURE = Architecture(
    classes=("Qwen3VLForConditionalGeneration",),
    model_types=("qwen3_vl", "qwen3_vl_text"),
    gguf_name="qwen3vl",
    layers=every_layer(ATTENTION_NORM, ATTENTION, QUERY_KEY_NORMS, FFN_NORM, GATED_FFN),
    metadata_keys=METADATA | RMS_NORM | POSITIONS,
    restored=restored,
    defaults={"tie_word_embeddings": False, "rms_norm_eps": 1e-6, "head_dim": 128},
    fixed={"hidden_act": SILU, "attention_bias": (False,)},
    checks=(all_frequencies_turn(SECTIONS),),
    computed_as="qwen3",
)
