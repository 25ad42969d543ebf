"""Qwen3-VL with experts, its text part. Some checkpoints have the experts' matrices transposed."""

from dataclasses import replace

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.families.qwen3_moe import ARCHITECTURE as QWEN3_MOE
from thriftbit.sources.architectures.families.qwen3_vl import POSITIONS, SECTIONS, restored
from thriftbit.sources.architectures.kinds import Kind, every_layer
from thriftbit.sources.architectures.llama_like import (
    ATTENTION,
    ATTENTION_NORM,
    FFN_NORM,
    QUERY_KEY_NORMS,
    ROUTER,
    routed_experts,
)
from thriftbit.sources.architectures.positions import all_frequencies_turn

EXPERTS = Kind(tuple(replace(row, turned=True, spellings=()) for row in routed_experts().rows))

ARCHITECTURE = Architecture(
    classes=("Qwen3VLMoeForConditionalGeneration",),
    model_types=("qwen3_vl_moe", "qwen3_vl_moe_text"),
    gguf_name="qwen3vlmoe",
    layers=every_layer(ATTENTION_NORM, ATTENTION, QUERY_KEY_NORMS, FFN_NORM, ROUTER, EXPERTS),
    metadata_keys={**QWEN3_MOE.metadata_keys, **POSITIONS},
    restored=restored,
    aliases=QWEN3_MOE.aliases,
    defaults={**QWEN3_MOE.defaults, "norm_topk_prob": True},
    fixed=QWEN3_MOE.fixed,
    checks=(all_frequencies_turn(SECTIONS),),
    computed_as="qwen3_moe",
)
