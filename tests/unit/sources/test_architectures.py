"""Architectures on checkpoints that are wrong, old or unusual. Right ones are for the conformance tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thriftbit.errors import ThriftbitError
from thriftbit.sources.architectures import (
    Architecture,
    architecture_from_gguf,
    find_architecture,
    known_architectures,
)
from thriftbit.sources.checkpoint import Checkpoint
from thriftbit.sources.views import constant

from .made_checkpoints import GEMMA2, GEMMA3, GPT2, LLAMA, checkpoint, names, of, refused, tensor


def test_every_file_of_the_folder_is_a_family() -> None:
    folder = Path(find_architecture.__code__.co_filename).parent / "families"
    assert set(known_architectures()) == {file.stem for file in folder.glob("*.py")} - {"__init__"}
    assert all(isinstance(architecture, Architecture) for architecture in known_architectures().values())


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"architectures": ["GraniteMoeHybridForCausalLM"], "layer_types": ["mamba", "attention"]}, "granitehybrid"),
        ({"architectures": ["GraniteMoeHybridForCausalLM"], "layer_types": ["attention"]}, "granite"),
        ({"architectures": ["NemotronHForCausalLM"], "hybrid_override_pattern": "M-M*-"}, "nemotron_h"),
        ({"architectures": ["NemotronHForCausalLM"], "layers_block_type": ["mamba", "moe"]}, "nemotron_h_moe"),
    ],
)
def test_of_a_class_that_two_families_share_the_configuration_decides(config: dict[str, Any], expected: str) -> None:
    sharing = [each for each in known_architectures().values() if config["architectures"][0] in each.classes]
    assert [each.gguf_name for each in sharing if each.applies(config)] == [expected]


def test_no_other_class_belongs_to_two_families() -> None:
    classes = [name for architecture in known_architectures().values() for name in architecture.classes]
    shared = {"GraniteMoeHybridForCausalLM", "NemotronHForCausalLM"}
    assert {name for name in classes if classes.count(name) > 1} == shared


def test_of_an_unknown_class_it_is_said_what_works() -> None:
    with pytest.raises(ThriftbitError, match=r"BambaForCausalLM' has no table here.*converter may know it"):
        find_architecture({"architectures": ["BambaForCausalLM"], "model_type": "llama"})
    with pytest.raises(ThriftbitError, match="mamba' has no table"):
        find_architecture({"model_type": "mamba"})
    for config in ({}, {"architectures": []}, {"architectures": [3]}, {"architectures": [["a"]]}, {"model_type": {}}):
        with pytest.raises(ThriftbitError, match="has no table"):
            find_architecture(config)


def test_the_model_type_decides_where_no_class_is_named() -> None:
    assert find_architecture({"model_type": "qwen3"}).gguf_name == "qwen3"


def test_gguf_names_lead_back_to_the_family() -> None:
    assert architecture_from_gguf("llama", {}) is known_architectures()["llama"]
    assert architecture_from_gguf("llama", {"llama.expert_count": np.uint32(8)}) is known_architectures()["mixtral"]
    with pytest.raises(ThriftbitError, match="'falcon' has no table"):
        architecture_from_gguf("falcon", {})


DEEPSEEK = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "kimi_k2",
    "vocab_size": 11,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "q_lora_rank": 4,
    "kv_lora_rank": 6,
    "qk_rope_head_dim": 2,
    "qk_nope_head_dim": 3,
    "v_head_dim": 5,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 10,
    "first_k_dense_replace": 1,
    "n_group": 4,
    "topk_group": 2,
    "num_nextn_predict_layers": 1,
}


def test_layers_that_llama_cpp_leaves_out_are_left_out_aloud() -> None:
    architecture = find_architecture(DEEPSEEK)
    tensors = architecture.implied_tensors(DEEPSEEK, "BF16")
    ahead = {name: tensor(name, (3, 5)) for name in ("model.layers.2.eh_proj.weight", "model.layers.2.odd.weight")}
    made = Checkpoint(Path("made"), DEEPSEEK, tensors | ahead)
    without = Checkpoint(Path("made"), DEEPSEEK, tensors)
    mapped, expected = architecture.map_tensors(architecture.settled(made)), architecture.map_tensors(without)
    assert [each.name for each in mapped] == [each.name for each in expected]
    assert architecture.metadata(DEEPSEEK)["deepseek2.block_count"] == 2
    assert any("guesses the token after the next" in sentence for sentence in architecture.limitations(DEEPSEEK))
    assert architecture.limitations({**DEEPSEEK, "num_nextn_predict_layers": 0}) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_hidden_layers": 26}, "without q_lora_rank"),
        ({"q_lora_rank": None}, "there is none"),
        ({"topk_group": 4}, "4 of 4 groups of 8 experts"),
        ({"n_group": 3, "topk_group": 2}, "2 of 3 groups of 8 experts"),
        ({"scoring_func": "softmax"}, "scoring_func"),
        ({"rope_scaling": {"type": "yarn", "factor": 4, "mscale": 1.0, "mscale_all_dim": 0.7}}, "mscale_all_dim"),
        ({"rope_scaling": {"type": "yarn", "factor": 4}}, "mscale_all_dim"),
    ],
)
def test_what_llama_cpp_computes_otherwise_of_deepseek_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ThriftbitError, match=words):
        find_architecture(DEEPSEEK).metadata({**DEEPSEEK, **changes})


def test_deepseek_v2_that_chooses_groups_of_experts_is_refused() -> None:
    config = {**DEEPSEEK, "architectures": ["DeepseekV2ForCausalLM"], "topk_method": "group_limited_greedy"}
    with pytest.raises(ThriftbitError, match="group_limited_greedy"):
        find_architecture(config).metadata(config)


MINISTRAL = LLAMA | {"architectures": ["Ministral3ForCausalLM"], "model_type": "ministral3"}
MINISTRAL_ROPE = {"type": "yarn", "factor": 4, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}


@pytest.mark.parametrize(
    "rope", [{}, {"mscale": 0.7}, {"mscale_all_dim": 0.7}, {"attention_factor": 1.3}, {"llama_4_scaling_beta": None}]
)
def test_what_llama_cpp_computes_otherwise_of_ministral_is_refused(rope: dict[str, Any]) -> None:
    architecture = find_architecture(MINISTRAL)
    keys = architecture.metadata({**MINISTRAL, "rope_parameters": MINISTRAL_ROPE})
    assert keys["mistral3.attention.temperature_scale"] == np.float32(0.1)
    assert keys["mistral3.rope.scaling.yarn_log_multiplier"] == 1
    assert "mistral3.rope.scaling.attn_factor" not in keys
    with pytest.raises(ThriftbitError, match=r"llama\.cpp computes"):
        architecture.metadata({**MINISTRAL, "rope_parameters": MINISTRAL_ROPE | rope if rope else None})


def test_minimax_m2_rotates_as_many_entries_as_older_configurations_say() -> None:
    config = {
        **LLAMA,
        "architectures": ["MiniMaxM2ForCausalLM"],
        "model_type": "minimax_m2",
        "head_dim": 8,
        "rotary_dim": 4,
        "num_local_experts": 3,
        "num_experts_per_tok": 2,
    }
    architecture = find_architecture(config)
    assert architecture.metadata(config)["minimax-m2.rope.dimension_count"] == 4
    layers = config["num_hidden_layers"]
    assert architecture.metadata({**config, "attn_type_list": [1] * layers})
    with pytest.raises(ThriftbitError, match="linear attention"):
        architecture.metadata({**config, "attn_type_list": [0] + [1] * (layers - 1)})


def test_container_order_is_layer_by_layer() -> None:
    mapped = names(LLAMA, checkpoint(LLAMA))
    assert mapped[0] == "token_embd.weight"
    assert mapped[-2:] == ["output_norm.weight", "output.weight"]
    assert [name.split(".")[1] for name in mapped[1:-2]] == ["0"] * 9 + ["1"] * 9


def test_missing_and_unknown_tensors_are_named() -> None:
    refused(LLAMA, "missing", "model.layers.1.mlp.up_proj.weight", **{"model.layers.1.mlp.up_proj.weight": None})
    refused(LLAMA, "not known", "model.layers.0.mystery", **{"model.layers.0.mystery": (3, 4)})
    refused(LLAMA, "not known", "self_attn.q_proj.bias", **{"model.layers.0.self_attn.q_proj.bias": (16,)})
    many: dict[str, Any] = {f"model.layers.0.extra.{i}": (2,) for i in range(9)}
    refused(LLAMA, "9 not known", "and 6 more", **many)


def test_a_bias_is_asked_for_where_the_configuration_says_so() -> None:
    biased = LLAMA | {"attention_bias": True}
    assert "blk.1.attn_output.bias" in names(biased, checkpoint(biased))
    refused(biased, "model.layers.1.self_attn.k_proj.bias", **{"model.layers.1.self_attn.k_proj.bias": None})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.embed_tokens.weight", (21, 16)),
        ("lm_head.weight", (21, 16)),
        ("model.layers.1.self_attn.k_proj.weight", (8, 16)),
        ("model.layers.0.mlp.down_proj.weight", (16, 24)),
        ("model.norm.weight", (16,)),
    ],
)
def test_a_shape_that_contradicts_the_configuration(name: str, expected: tuple[int, ...]) -> None:
    for found in ((expected[0] + 1, *expected[1:]), (*expected, 1), expected[1:] or (1, 1)):
        refused(LLAMA, name, str(expected), str(found), **{name: found})


def test_experts_are_stacked_and_every_one_is_needed() -> None:
    mixtral = LLAMA | {"architectures": ["MixtralForCausalLM"], "num_local_experts": 3}
    architecture, made = find_architecture(mixtral), checkpoint(mixtral, one_by_one=True)
    mapped = architecture.map_tensors(made)
    assert next(t.shape for t in mapped if t.name == "blk.0.ffn_down_exps.weight") == (3, 16, 24)
    third = "model.layers.0.block_sparse_moe.experts.2.w1.weight"
    for change, word in {None: "experts.2.w1", (25, 16): r"\(24, 16\) for .*experts.2.w1"}.items():
        tensors = {name: each for name, each in made.tensors.items() if name != third}
        tensors |= {third: tensor(third, change)} if change else {}
        with pytest.raises(ThriftbitError, match=word):
            architecture.map_tensors(replace(made, tensors=tensors))
    more = {**made.tensors, "model.layers.0.block_sparse_moe.experts.3.w1.weight": tensor("x", (24, 16))}
    with pytest.raises(ThriftbitError, match="not known"):
        architecture.map_tensors(replace(made, tensors=more))


@pytest.mark.parametrize("name", ["MixtralForCausalLM", "Qwen3MoeForCausalLM"])
def test_experts_apart_and_joined_are_the_same_model(name: str) -> None:
    config = LLAMA | {"architectures": [name], "num_local_experts": 3, "num_experts_per_tok": 2, "head_dim": 4}
    config |= {"moe_intermediate_size": 24, "norm_topk_prob": True}
    apart, joined = checkpoint(config, one_by_one=True), checkpoint(config)
    values = np.random.default_rng(0).standard_normal((3, 48, 16)).astype(np.float32)
    architecture = find_architecture(config)
    entries = architecture.entries(architecture.dimensions(architecture.metadata(config)))
    (entry,) = (each for each in entries if each.sources[0] == "model.layers.1.mlp.experts.gate_up_proj")
    parts = dict(zip(list(entry.spellings())[1], values.reshape(6, 24, 16), strict=True))
    found = []
    for made, weights in ((apart, parts), (joined, {entry.sources[0]: values})):
        tensors = {**made.tensors, **{key: of(key, value) for key, value in weights.items()}}
        mapped = architecture.map_tensors(replace(made, tensors=tensors))
        found.append({each.name: each.load() for each in mapped if each.name.startswith("blk.1.ffn_")})
    for key, value in found[0].items():
        np.testing.assert_array_equal(found[1][key], value)
    np.testing.assert_array_equal(found[0]["blk.1.ffn_up_exps.weight"], values[:, 24:].reshape(-1, 16))


def test_forged_counts_are_refused_before_anything_is_laid_out() -> None:
    made = checkpoint(LLAMA)
    with pytest.raises(ThriftbitError, match="2000000000 layers"):
        find_architecture(LLAMA).map_tensors(replace(made, config=LLAMA | {"num_hidden_layers": 2_000_000_000}))
    architecture = architecture_from_gguf("llama", {})
    mapped, metadata = architecture.map_tensors(made), architecture.metadata(LLAMA)
    for key, value in {"block_count": 2**31, "attention.head_count": 2**31, "embedding_length": 2**31}.items():
        with pytest.raises(ThriftbitError):
            architecture.unmap_tensors(mapped, metadata | {f"llama.{key}": np.uint32(value)})


def test_tied_embeddings() -> None:
    tied = LLAMA | {"tie_word_embeddings": True}
    assert "output.weight" not in names(tied, checkpoint(tied, **{"lm_head.weight": None}))
    assert "output.weight" not in names(tied, checkpoint(tied))
    refused(LLAMA, "missing", "lm_head.weight", **{"lm_head.weight": None})
    olmo2 = tied | {"architectures": ["Olmo2ForCausalLM"]}
    assert names(olmo2, checkpoint(olmo2))[-1] == "output.weight"
    neither: dict[str, Any] = {"model.embed_tokens.weight": None, "lm_head.weight": None}
    refused(olmo2, "missing", "model.embed_tokens.weight", **neither)


def with_values(made: Checkpoint, **values: float) -> Checkpoint:
    """The checkpoint with one number in some of its tensors"""
    tensors = dict(made.tensors)
    for name, value in values.items():
        tensors[name] = constant(name, np.full(tensors[name].shape, value, np.float32))
    return replace(made, tensors=tensors)


def matrix(config: dict[str, Any], made: Checkpoint, name: str) -> Any:
    mapped = {tensor.name: tensor for tensor in find_architecture(config).map_tensors(made)}
    return mapped[name].load()[0, 0] if name in mapped else None


@pytest.mark.parametrize(
    ("config", "embedding", "head"),
    [
        (LLAMA, "model.embed_tokens.weight", "lm_head.weight"),
        (LLAMA | {"architectures": ["Olmo2ForCausalLM"]}, "model.embed_tokens.weight", "lm_head.weight"),
        (LLAMA | {"architectures": ["Qwen3ForCausalLM"]}, "model.embed_tokens.weight", "lm_head.weight"),
        (GEMMA3, "model.embed_tokens.weight", "lm_head.weight"),
        (GPT2, "transformer.wte.weight", "lm_head.weight"),
    ],
)
def test_the_weights_decide_whether_a_model_is_tied(config: dict[str, Any], embedding: str, head: str) -> None:
    tied = config | {"tie_word_embeddings": True}
    made = checkpoint(tied)
    copies = find_architecture(config).copies_tied
    assert matrix(tied, made, "output.weight") == (0.5 if copies else None)  # the two hold the same numbers
    assert matrix(tied, with_values(made, **{head: 0.25}), "output.weight") == 0.25
    only_the_head = checkpoint(tied, **{embedding: None})
    assert matrix(tied, only_the_head, "token_embd.weight") == 0.5
    assert matrix(tied, only_the_head, "output.weight") == (0.5 if copies else None)


def test_an_output_matrix_that_differs_in_its_last_row() -> None:
    tied = LLAMA | {"tie_word_embeddings": True}
    rows = np.full((21, 16), 0.5, np.float32)
    rows[-1, -1] = 0.25
    made = checkpoint(tied)
    changed = replace(made, tensors={**made.tensors, "lm_head.weight": constant("lm_head.weight", rows)})
    assert "output.weight" in names(tied, changed)


def test_a_family_that_llama_cpp_always_ties() -> None:
    made = checkpoint(GEMMA2 | {"tie_word_embeddings": True})
    assert "output.weight" not in names(GEMMA2, made)
    with pytest.raises(ThriftbitError, match=r"lm_head.weight differs from model.embed_tokens.weight.*gemma2"):
        names(GEMMA2, with_values(made, **{"lm_head.weight": 0.25}))


def test_an_output_matrix_that_is_not_stored_although_the_model_is_not_tied() -> None:
    refused(LLAMA, "lm_head.weight is missing", "set tie_word_embeddings to true", **{"lm_head.weight": None})


def test_buffers_of_older_releases_are_ignored() -> None:
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": (2,)}
    assert names(LLAMA, checkpoint(LLAMA, **old)) == names(LLAMA, checkpoint(LLAMA))
    masks = {"transformer.h.0.attn.bias": (1, 1, 32, 32), "transformer.h.0.attn.masked_bias": (1,)}
    assert names(GPT2, checkpoint(GPT2, **masks)) == names(GPT2, checkpoint(GPT2))


def test_the_first_gpt2_checkpoints_are_of_the_bare_model() -> None:
    made = checkpoint(GPT2)
    bare = {
        name.removeprefix("transformer."): tensor for name, tensor in made.tensors.items() if name != "lm_head.weight"
    }
    bare["h.1.attn.bias"] = tensor("h.1.attn.bias", (1, 1, 32, 32))
    assert names(GPT2, replace(made, tensors=bare)) == names(GPT2, made)


def test_multimodal_checkpoints_of_both_generations() -> None:
    made = checkpoint(GEMMA3)
    expected = names(GEMMA3, made)
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": GEMMA3 | {"architectures": None}}
    for before, after, tower in (
        ("", "language_model.", "vision_tower.a"),
        ("model.", "model.language_model.", "model.vision_tower.a"),
    ):
        tensors = {
            after + name.removeprefix(before): tensor
            for name, tensor in made.tensors.items()
            if name != "lm_head.weight"
        }
        tensors[tower] = tensor(tower, (2, 3, 4))
        assert names(config, Checkpoint(Path("model"), config, tensors)) == expected


def test_one_tensor_under_two_names_is_refused() -> None:
    made = checkpoint(GEMMA3)
    twice = {**made.tensors, "language_model.model.norm.weight": tensor("language_model.model.norm.weight", (16,))}
    with pytest.raises(ThriftbitError, match="twice"):
        find_architecture(GEMMA3).map_tensors(replace(made, tensors=twice))
