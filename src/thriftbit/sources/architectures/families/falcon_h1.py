"""Falcon-H1: attention and a state space in parallel in every layer, and a dozen multipliers.

llama.cpp has no keys for the multipliers, so they are multiplied into the weights.
"""

from typing import Any

from thriftbit.sources.architectures import mamba
from thriftbit.sources.architectures.architecture import Architecture
from thriftbit.sources.architectures.configuration import Configuration, finite
from thriftbit.sources.architectures.dimensions import Dimensions
from thriftbit.sources.architectures.kinds import Kind, layer_of
from thriftbit.sources.architectures.layer_cache import attention_cache
from thriftbit.sources.architectures.llama_like import ATTENTION_NORM, METADATA, RMS_NORM, SILU
from thriftbit.sources.architectures.rows import Row, layer

MULTIPLIERS: dict[str, Any] = {
    "embedding_multiplier": 1.0,
    "lm_head_multiplier": 1.0,
    "attention_in_multiplier": 1.0,
    "attention_out_multiplier": 1.0,
    "key_multiplier": 1.0,
    "ssm_in_multiplier": 1.0,
    "ssm_out_multiplier": 1.0,
    "ssm_multipliers": [1.0] * 5,
    "mlp_multipliers": [1.0] * 2,
}


def key_factor(configuration: Configuration) -> float:
    return configuration.number("key_multiplier") * configuration.number("attention_in_multiplier")


def of_ffn(index: int) -> Any:
    return lambda configuration: finite(configuration.listed("mlp_multipliers", 2)[index], "mlp_multipliers")


def state_space_factors(configuration: Configuration) -> list[float]:
    """Return the factor of each row of the state space's first matrix. The rows are: gates, inputs, the two projections
    of the state (B and C), time steps."""
    inner = configuration.integer("mamba_d_ssm")
    state = configuration.integer("mamba_n_groups") * configuration.integer("mamba_d_state")
    lengths = (inner, inner, state, state, configuration.integer("mamba_n_heads"))
    multipliers = [finite(each, "ssm_multipliers") for each in configuration.listed("ssm_multipliers", 5)]
    factor = configuration.number("ssm_in_multiplier")
    return [factor * each for each, length in zip(multipliers, lengths, strict=True) for _ in range(length)]


ATTENTION = Kind(
    (
        layer("self_attn.q_proj.weight", "attn_q.weight", "query width", multiplied="attention_in_multiplier"),
        layer("self_attn.k_proj.weight", "attn_k.weight", "key_value width", multiplied="key_factor"),
        layer("self_attn.v_proj.weight", "attn_v.weight", "key_value width", multiplied="attention_in_multiplier"),
        layer("self_attn.o_proj.weight", "attn_output.weight", "width query", multiplied="attention_out_multiplier"),
    ),
    attention_cache,
)
LAYER = layer_of(
    ATTENTION_NORM,
    ATTENTION,
    mamba.state_space(
        "mamba",
        "mamba_conv_bias",
        norm_when="mamba_rms_norm",
        multiplied=("state_space_factors", "ssm_out_multiplier"),
    ),
    layer("pre_ff_layernorm.weight", "ffn_norm", "width"),
    layer("feed_forward.gate_proj.weight", "ffn_gate.weight", "ffn width", multiplied="gate_factor"),
    layer("feed_forward.up_proj.weight", "ffn_up.weight", "ffn width"),
    layer("feed_forward.down_proj.weight", "ffn_down.weight", "width ffn", multiplied="down_factor"),
)


def computes_the_same(configuration: Configuration, model: Dimensions) -> str | None:
    if configuration.flag("mamba_rms_norm") and configuration.flag("mamba_norm_before_gate"):
        return "mamba_norm_before_gate is true, and llama.cpp computes the norm behind the gate."
    if configuration.flag("tie_word_embeddings") and (
        configuration.number("embedding_multiplier") != configuration.number("lm_head_multiplier")
    ):
        return "tie_word_embeddings is true, and the two multipliers of that matrix differ."
    return None


ARCHITECTURE = Architecture(
    classes=("FalconH1ForCausalLM",),
    model_types=("falcon_h1",),
    gguf_name="falcon-h1",
    before=(
        Row("model.embed_tokens.weight", "token_embd.weight", "vocabulary width", multiplied="embedding_multiplier"),
    ),
    layers=lambda model: [LAYER] * model.layers,
    after=(
        Row("model.final_layernorm.weight", "output_norm.weight", "width"),
        Row("lm_head.weight", "output.weight", "vocabulary width", multiplied="lm_head_multiplier"),
    ),
    lengths=mamba.LENGTHS,
    metadata_keys=METADATA
    | RMS_NORM
    | {
        "ssm.conv_kernel": "mamba_d_conv",
        "ssm.state_size": "mamba_d_state",
        "ssm.group_count": "mamba_n_groups",
        "ssm.inner_size": "mamba_d_ssm",
        "ssm.time_step_rank": "mamba_n_heads",
    },
    restored=lambda stated: {
        "mamba_d_head": stated["ssm.inner_size"] // stated["ssm.time_step_rank"],
        "mamba_rms_norm": "blk.0.ssm_norm.weight" in stated["tensors"],
        "mamba_norm_before_gate": False,
    },
    defaults=MULTIPLIERS
    | {
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100000.0,
        "mamba_d_ssm": lambda configuration: 2 * configuration.integer("hidden_size"),
        "mamba_d_conv": 4,
        "mamba_d_state": 256,
        "mamba_n_groups": 1,
        "mamba_n_heads": 128,
        "mamba_conv_bias": True,
        "mamba_rms_norm": False,
        "mamba_norm_before_gate": True,
        "key_factor": key_factor,
        "gate_factor": of_ffn(0),
        "down_factor": of_ffn(1),
        "state_space_factors": state_space_factors,
    },
    fixed={
        "hidden_act": SILU,
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "projectors_bias": (False,),
        "mamba_proj_bias": (False,),
        "mamba_conv_bias": (True,),
    },
    checks=(computes_the_same, mamba.steps_are_not_limited),
    multipliers=MULTIPLIERS,
    rope_types=frozenset({"default"}),
)
