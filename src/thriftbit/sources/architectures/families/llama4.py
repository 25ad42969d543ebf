"""Llama 4, its text part: routed experts and a shared one, attention in chunks, every fourth layer without positions.

llama.cpp has the published models' numbers built in: chunks of 8192 tokens, every fourth layer full.
"""

from dataclasses import replace

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.architectures.kinds import Kind, layer_of
from thriftbit.sources.architectures.layer_cache import windowed
from thriftbit.sources.architectures.llama_like import (
    ATTENTION,
    ATTENTION_NORM,
    EXPERTS_METADATA,
    FFN_NORM,
    GATES_AND_UPS,
    METADATA,
    RMS_NORM,
    SILU,
    shared_experts,
)
from thriftbit.sources.architectures.rope import WITH_FACTORS
from thriftbit.sources.architectures.rows import layer
from thriftbit.sources.architectures.transforms import TRANSPOSE, split

CHUNK_TOKENS = 8192
FULL_EVERY = 4
WITHOUT_NORMS = 128  # experts; the model with that number does not normalise queries and keys

GATE_UP = TRANSPOSE.then(
    split(
        "expert_ffn expert_ffn",
        "experts",
        parts=("experts expert_ffn width",) * 2,
        whole="experts expert_gate_up width",
    )
)
EXPERTS = layer_of(
    layer("feed_forward.router.weight", "ffn_gate_inp.weight", "experts width"),
    layer("feed_forward.experts.gate_up_proj", GATES_AND_UPS, "experts width expert_gate_up", GATE_UP),
    layer("feed_forward.experts.down_proj", "ffn_down_exps.weight", "experts expert_ffn width", TRANSPOSE),
    shared_experts("feed_forward.shared_expert"),
)
DENSE = Kind(
    (
        layer("feed_forward.gate_proj.weight", "ffn_gate.weight", "ffn width"),
        layer("feed_forward.up_proj.weight", "ffn_up.weight", "ffn width"),
        layer("feed_forward.down_proj.weight", "ffn_down.weight", "width ffn"),
    )
)


def layers(model: Dimensions) -> list[Kind]:
    step = model.number("interleave_moe_layer_step")

    def kind(number: int) -> Kind:
        feed_forward = EXPERTS if (number + 1) % step == 0 else DENSE
        whole = layer_of(ATTENTION_NORM, ATTENTION, FFN_NORM, feed_forward)
        chunked = replace(whole, keeps=windowed(whole.keeps, default_tokens=CHUNK_TOKENS))
        return whole if (number + 1) % FULL_EVERY == 0 else chunked

    return [kind(number) for number in range(model.layers)]


def numbers_of_the_published(configuration: Configuration, model: Dimensions) -> str | None:
    turning = [int((number + 1) % FULL_EVERY != 0) for number in range(model.layers)]
    if (configuration.get("no_rope_layers") or turning) != turning:
        return f"no_rope_layers is not every {FULL_EVERY}th layer, which is what llama.cpp computes."
    if model.layers < FULL_EVERY:
        return f"it has {model.layers} layers, none of them full; llama.cpp runs {FULL_EVERY} or more of this family."
    step = configuration.integer("interleave_moe_layer_step")
    sparse = list(range(step - 1, model.layers, max(1, step)))
    if configuration.get("moe_layers", sparse) != sparse:
        return "moe_layers is not what interleave_moe_layer_step says, which llama.cpp goes by."
    if configuration.flag("use_qk_norm") == (model.experts == WITHOUT_NORMS):
        return f"llama.cpp normalises queries and keys of all models but those with {WITHOUT_NORMS} experts."
    return None


ARCHITECTURE = Architecture(
    classes=("Llama4ForConditionalGeneration", "Llama4ForCausalLM"),
    model_types=("llama4_text", "llama4"),
    gguf_name="llama4",
    layers=layers,
    lengths={"shared_ffn": lambda model: model.expert_ffn},
    metadata_keys=METADATA
    | RMS_NORM
    | EXPERTS_METADATA
    | {
        "feed_forward_length": "intermediate_size_mlp",
        "expert_feed_forward_length": "intermediate_size",
        "interleave_moe_layer_step": "interleave_moe_layer_step",
    },
    restored=lambda stated: {
        "use_qk_norm": stated["expert_count"] != WITHOUT_NORMS,
    },
    defaults={
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "head_dim": 128,
        "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 1,
        "intermediate_size_mlp": 16384,
        "attention_chunk_size": CHUNK_TOKENS,
        "use_qk_norm": True,
    },
    fixed={
        "hidden_act": SILU,
        "attention_bias": (False,),
        "attention_chunk_size": (CHUNK_TOKENS,),
        "no_rope_layer_interval": (FULL_EVERY,),
        "attn_temperature_tuning": (True,),
        "floor_scale": (8192,),
        "attn_scale": (0.1,),
    },
    checks=(numbers_of_the_published,),
    rope_types=WITH_FACTORS,
)
