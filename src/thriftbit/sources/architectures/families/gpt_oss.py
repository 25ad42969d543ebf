"""gpt-oss: experts in every layer, attention sinks, and a sliding window in every other layer.

The weights here are in 16 bits; `packed/mxfp4.py` unpacks the published ones (MXFP4)."""

from collections.abc import Collection

from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.checks import full_attention_every
from thriftbit.sources.architectures.configuration import Configuration
from thriftbit.sources.architectures.kinds import Kind, every_nth, layer_of, sliding
from thriftbit.sources.architectures.llama_like import (
    ATTENTION,
    ATTENTION_NORM,
    EXPERTS_METADATA,
    GATES_AND_UPS,
    METADATA,
    QUERY_KEY_VALUE_BIASES,
    RMS_NORM,
    SILU,
)
from thriftbit.sources.architectures.rope import PLAIN, UNROUNDED
from thriftbit.sources.architectures.rows import layer, norm
from thriftbit.sources.architectures.transforms import TRANSPOSE, alternate_columns, split

# Matrices are (inputs, outputs), and the outputs of gate and up alternate.
GATE_UP = TRANSPOSE.then(
    split("1 1", "expert_rows", parts=("experts expert_ffn width",) * 2, whole="experts expert_gate_up width")
)
BIASES = ("ffn_gate_exps.bias", "ffn_up_exps.bias")
EXPERTS = Kind(
    (
        layer("mlp.router.weight", "ffn_gate_inp.weight", "experts width"),
        layer("mlp.router.bias", "ffn_gate_inp.bias", "experts"),
        layer("mlp.experts.gate_up_proj", GATES_AND_UPS, "experts width expert_gate_up", GATE_UP),
        layer("mlp.experts.gate_up_proj_bias", BIASES, "experts expert_gate_up", alternate_columns()),
        layer("mlp.experts.down_proj", "ffn_down_exps.weight", "experts expert_ffn width", TRANSPOSE),
        layer("mlp.experts.down_proj_bias", "ffn_down_exps.bias", "experts width"),
    )
)
FULL = layer_of(
    ATTENTION_NORM,
    ATTENTION,
    QUERY_KEY_VALUE_BIASES,
    layer("self_attn.o_proj.bias", "attn_output.bias", "width"),
    layer("self_attn.sinks", "attn_sinks.weight", "heads"),
    norm("post_attention_layernorm", "post_attention_norm"),
    EXPERTS,
)


def rounded_bounds(configuration: Configuration) -> Collection[str]:
    rope = configuration.get("rope_parameters") or configuration.get("rope_scaling") or {}
    if isinstance(rope, dict) and rope.get("truncate") is False:
        return ("llama.cpp rounds where YaRN begins and ends to blend frequencies, and the original does not.",)
    return ()


ARCHITECTURE = Architecture(
    classes=("GptOssForCausalLM",),
    model_types=("gpt_oss",),
    gguf_name="gpt-oss",
    layers=every_nth(2, FULL, others=sliding(FULL)),
    lengths={"expert_rows": lambda model: model.experts * model.expert_ffn},
    metadata_keys=METADATA
    | RMS_NORM
    | EXPERTS_METADATA
    | {"attention.sliding_window": "sliding_window", "expert_feed_forward_length": "intermediate_size"},
    aliases={"num_experts": "num_local_experts", "experts_per_token": "num_experts_per_tok"},
    defaults={"tie_word_embeddings": False, "rms_norm_eps": 1e-5, "head_dim": 64, "rope_theta": 150000.0},
    fixed={"hidden_act": SILU, "attention_bias": (True,), "swiglu_alpha": (1.702,), "swiglu_limit": (7.0,)},
    checks=(full_attention_every(2),),
    notes=rounded_bounds,
    copies_tied=True,
    rope_types=PLAIN | {UNROUNDED},
)
