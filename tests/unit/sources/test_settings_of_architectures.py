"""Configurations of architectures: what is wrong in them, what llama.cpp computes otherwise, and what they mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thriftbit.errors import ThriftbitError
from thriftbit.sources.architectures import (
    find_architecture,
    known_architectures,
    role_of,
)

from .made_checkpoints import GEMMA2, GEMMA3, GPT2, LLAMA, checkpoint, names, tensor

FALCON_H1 = LLAMA | {"architectures": ["FalconH1ForCausalLM"], "mamba_d_ssm": 16, "mamba_n_heads": 2, "mamba_d_head": 8}
MIXTRAL = LLAMA | {"architectures": ["MixtralForCausalLM"], "num_local_experts": 4, "num_experts_per_tok": 2}


@pytest.mark.parametrize(
    ("base", "change", "word"),
    [
        (LLAMA, {"hidden_size": None}, "hidden_size"),
        (LLAMA, {"hidden_size": "16"}, "hidden_size"),
        (LLAMA, {"hidden_size": True}, "hidden_size"),
        (LLAMA, {"hidden_size": 16.5}, "hidden_size"),
        (LLAMA, {"hidden_size": -16}, "hidden_size"),
        (LLAMA, {"num_hidden_layers": 0}, "block_count"),
        (LLAMA, {"num_attention_heads": 0}, "head"),
        (LLAMA, {"vocab_size": 10**12}, "vocab_size"),
        (LLAMA, {"num_key_value_heads": 3}, "key-value heads"),
        (LLAMA, {"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        (LLAMA, {"rope_theta": "big"}, "rope_theta"),
        (LLAMA, {"hidden_act": "relu"}, "hidden_act"),
        (LLAMA, {"hidden_act": ["silu"]}, "hidden_act"),
        (LLAMA, {"head_dim": 5}, "rotated"),
        (LLAMA, {"partial_rotary_factor": 0.5}, "rotated"),
        (LLAMA, {"architectures": ["Qwen2ForCausalLM"], "partial_rotary_factor": 0.5}, "rotated"),
        (GEMMA2, {"partial_rotary_factor": 0.5}, "rotated"),
        (MIXTRAL, {"num_experts_per_tok": 0}, "choose 0 of 4"),
        (MIXTRAL, {"num_experts_per_tok": 5}, "choose 5 of 4"),
        (MIXTRAL, {"num_local_experts": 0}, "experts of 0"),
        (LLAMA, {"architectures": ["GraniteForCausalLM"], "residual_multiplier": 0}, "residual_multiplier"),
        (LLAMA, {"architectures": ["Qwen3_5ForCausalLM"], "head_dim": 16, "rms_norm_eps": 0.01}, "delta nets"),
        (LLAMA, {"architectures": ["Qwen2VLForConditionalGeneration"], "rope_scaling": {"mrope_section": 3}}, "mrope"),
        (FALCON_H1, {"time_step_limit": [0.01, 0.1]}, "time_step_limit"),
        (LLAMA, {"rope_scaling": [1]}, "rope_parameters"),
        (LLAMA, {"rope_scaling": {"type": "magic"}}, "magic"),
        (LLAMA, {"rope_scaling": {"type": "linear", "factor": 0}}, "factor"),
        (LLAMA, {"rope_scaling": {"type": "yarn", "factor": 4.0, "beta_slow": 2}}, "beta_slow"),
        (LLAMA, {"rope_scaling": {"type": "yarn", "factor": 4.0, "truncate": False}}, "truncation"),
        (LLAMA, {"rope_scaling": {"type": "llama3", "factor": 4.0, "low_freq_factor": 5}}, "low_freq_factor"),
        (LLAMA, {"rope_scaling": {"type": "longrope", "long_factor": [1], "short_factor": [1, 2]}}, "long_factor"),
        (LLAMA, {"rope_scaling": {"type": "longrope", "long_factor": [1, "a"], "short_factor": [1, 2]}}, "long_factor"),
        (LLAMA, {"architectures": ["Qwen2ForCausalLM"], "head_dim": 8}, "width"),
        (LLAMA, {"architectures": ["Qwen2ForCausalLM"], "rope_scaling": {"type": "llama3"}}, "llama3"),
        (LLAMA, {"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 4, "num_experts_per_tok": 2,
                 "moe_intermediate_size": 8, "norm_topk_prob": False}, "norm_topk_prob"),
        (LLAMA, {"architectures": ["SmolLM3ForCausalLM"], "no_rope_layers": [1, 0]}, "no_rope_layers"),
        (GEMMA3, {"query_pre_attn_scalar": 9}, "query_pre_attn_scalar"),
        (GEMMA3, {"layer_types": ["full_attention"] * 6}, "layer_types"),
        (GEMMA3, {"sliding_window": 0}, "sliding_window"),
        (GEMMA2, {"tie_word_embeddings": False}, "tie_word_embeddings"),
        (GEMMA2, {"attn_logit_softcapping": None}, "attn_logit_softcapping"),
        (GEMMA2, {"layer_types": ["full_attention", "sliding_attention"] * 3}, "layer_types"),
        (GPT2, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    ],
)  # fmt: skip
def test_a_configuration_that_is_wrong_or_not_what_llama_cpp_computes(
    base: dict[str, Any], change: dict[str, Any], word: str
) -> None:
    config = base | change
    with pytest.raises(ThriftbitError, match=word):
        architecture = find_architecture(config)
        architecture.metadata(config)
        architecture.map_tensors(checkpoint(config))


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 70),
    st.sampled_from([2**31, 10**30, 1e38, 1e300, -1.0, 0.5, float("inf"), float("nan")]),
    st.text(max_size=3),
    st.lists(st.integers(0, 2), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
NUMBERS = (
    "rope_theta",
    "factor",
    "original_max_position_embeddings",
    "attention_factor",
    "mscale",
    "mscale_all_dim",
    "low_freq_factor",
    "high_freq_factor",
    "partial_rotary_factor",
    "long_factor",
    "sliding_attention",
)
FLAT_ROPE = st.fixed_dictionaries(
    {"rope_type": st.sampled_from(["default", "linear", "yarn", "llama3", "longrope", 4])},
    optional=dict.fromkeys(NUMBERS, ANYTHING),
)
ROPE = st.one_of(FLAT_ROPE, st.fixed_dictionaries({"full_attention": FLAT_ROPE, "sliding_attention": ANYTHING}))


@settings(max_examples=400, deadline=None)
@given(base=st.sampled_from([LLAMA, GEMMA2, GEMMA3, GPT2]), data=st.data())
def test_no_configuration_does_worse_than_being_refused(base: dict[str, Any], data: st.DataObject) -> None:
    made = checkpoint(base)
    classes = [architecture.classes[0] for architecture in known_architectures().values()]
    config = base | {"architectures": [data.draw(st.sampled_from(classes))]} if data.draw(st.booleans()) else dict(base)
    keys = [*base, "rope_scaling", "rope_local_base_freq", "n_inner", "head_dim", "text_config", "layer_types"]
    for key in data.draw(st.lists(st.sampled_from(keys), max_size=2)):
        config[key] = data.draw(ANYTHING)
    config["rope_parameters"] = data.draw(st.one_of(st.none(), ANYTHING, ROPE))
    try:
        architecture = find_architecture(config)
        architecture.metadata(config)
        architecture.limitations(config)
        for mapped in architecture.map_tensors(replace(made, config=config)):
            assert np.isfinite(mapped.load()).all()
    except ThriftbitError:
        pass


def test_both_generations_of_rope_settings_say_the_same() -> None:
    llama = find_architecture(LLAMA)
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    without = {key: value for key, value in LLAMA.items() if key != "rope_theta"}
    old = LLAMA | {"rope_scaling": {"rope_type": "llama3"} | scaling}
    new = without | {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1000.0} | scaling}
    assert llama.metadata(old) == llama.metadata(new)
    factors = [llama.map_tensors(checkpoint(config))[-1] for config in (old, new)]
    assert factors[0].name == "rope_freqs.weight"
    assert factors[0].role == "rope-factors"
    np.testing.assert_array_equal(factors[0].load(), factors[1].load())

    gemma3 = find_architecture(GEMMA3)
    old = GEMMA3 | {
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    }
    layers = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    assert gemma3.metadata(old) == gemma3.metadata(GEMMA3 | {"rope_parameters": layers})


def test_phi3_as_microsoft_published_it() -> None:
    phi = LLAMA | {
        "architectures": ["Phi3ForCausalLM"],
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "partial_rotary_factor": 0.75,
        "original_max_position_embeddings": 32,
        "sliding_window": 64,
        "rope_scaling": {"type": "longrope", "long_factor": [2.0] * 6, "short_factor": [1.0] * 6},
    }
    metadata = find_architecture(phi).metadata(phi)
    assert metadata["phi3.rope.dimension_count"] == 12
    assert metadata["phi3.rope.scaling.original_context_length"] == 32
    assert metadata["phi3.rope.scaling.attn_factor"] == np.float32(np.sqrt(1 + np.log(4) / np.log(32)))
    assert metadata["phi3.attention.sliding_window"] == 64
    assert names(phi, checkpoint(phi))[-2:] == ["rope_factors_long.weight", "rope_factors_short.weight"]
    assert any("sliding window of 64" in text for text in find_architecture(phi).limitations(phi))


def test_what_llama_cpp_does_otherwise_on_long_texts_is_told() -> None:
    assert find_architecture(LLAMA).limitations(LLAMA) == []
    mistral = LLAMA | {"architectures": ["MistralForCausalLM"], "sliding_window": 64}
    assert "sliding window of 64" in find_architecture(mistral).limitations(mistral)[0]
    assert find_architecture(GEMMA3).limitations(GEMMA3) == []
    qwen = LLAMA | {"architectures": ["Qwen2ForCausalLM"], "sliding_window": 64, "use_sliding_window": False}
    assert find_architecture(qwen).limitations(qwen) == []
    dynamic = LLAMA | {"rope_scaling": {"type": "dynamic", "factor": 2.0}}
    assert "within 128 tokens" in find_architecture(dynamic).limitations(dynamic)[0]


def test_gemma2_is_right_before_it_is_made_wrong() -> None:
    assert find_architecture(GEMMA2).metadata(GEMMA2)["gemma2.attn_logit_softcapping"] == 50


def test_metadata_is_typed() -> None:
    metadata = find_architecture(LLAMA).metadata(LLAMA)
    assert isinstance(metadata["llama.rope.freq_base"], np.float32)
    assert isinstance(metadata["llama.block_count"], np.uint32)
    neox = LLAMA | {
        "architectures": ["GPTNeoXForCausalLM"],
        "hidden_act": "gelu",
        "num_key_value_heads": None,
        "rotary_pct": 0.5,
    }
    assert find_architecture(neox).metadata(neox)["gptneox.use_parallel_residual"] is True
    assert find_architecture(neox).metadata(neox)["gptneox.rope.dimension_count"] == 2


def test_the_way_back_is_as_strict() -> None:
    architecture = find_architecture(LLAMA)
    metadata = architecture.metadata(LLAMA)
    mapped = architecture.map_tensors(checkpoint(LLAMA))
    with pytest.raises(ThriftbitError, match=r"missing \(blk.0.attn_norm.weight\)"):
        architecture.unmap_tensors([t for t in mapped if t.name != "blk.0.attn_norm.weight"], metadata)
    with pytest.raises(ThriftbitError, match="not known"):
        architecture.unmap_tensors([*mapped, tensor("blk.0.mystery.weight", (2, 2))], metadata)
    wrong = [replace(t, shape=(17, 16)) if t.name == "blk.1.attn_q.weight" else t for t in mapped]
    with pytest.raises(ThriftbitError, match=r"blk.1.attn_q.weight.*\(17, 16\)"):
        architecture.unmap_tensors(wrong, metadata)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("blk.3.attn_q.weight", "attention-query"),
        ("blk.3.attn_q.bias", "bias"),
        ("blk.11.attn_q_norm.weight", "norm"),
        ("output_norm.weight", "norm"),
        ("output.weight", "output"),
        ("blk.0.ffn_gate_inp.weight", "router"),
        ("blk.0.ffn_down_exps.weight", "ffn-down-experts"),
        ("rope_freqs.weight", "rope-factors"),
        ("blk.0.ssm_a", "recurrent-decay"),
        ("blk.0.mystery.weight", ""),
    ],
)
def test_roles(name: str, role: str) -> None:
    assert role_of(name) == role
