from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from thriftbit import ThriftbitError, make_plan, open_model, quantize
from thriftbit.measurement.belonging import check_belongs
from thriftbit.sources.model import Model


@pytest.fixture
def original(tiny_llama: Path) -> Model:
    return open_model(tiny_llama)


@pytest.fixture
def quantized(original: Model, tmp_path: Path) -> Model:
    path = quantize(original, make_plan(original, "Q4_0"), tmp_path / "tiny-Q4_0.gguf").path
    return open_model(path, allow_requantize=True)


def refusal(quantized: Model, original: Model) -> str:
    with pytest.raises(ThriftbitError) as caught:
        check_belongs(quantized, original)
    assert str(caught.value).startswith(f"{quantized.source} was not made from {original.source}: ")
    return str(caught.value)


@pytest.fixture
def accept(told: list[str]) -> Callable[[Model, Model], None]:
    """Return a function that asserts that a file belongs to the original, and that nothing is said about it."""

    def accept(quantized: Model, original: Model) -> None:
        told.clear()  # what opening the files said
        check_belongs(quantized, original)
        assert told == []

    return accept


def with_metadata(model: Model, **changes: object) -> Model:
    named = {key.replace("__", "."): value for key, value in changes.items()}
    return replace(model, metadata={**model.metadata, **named})  # type: ignore[dict-item]


def test_what_was_made_from_it_belongs(
    quantized: Model, original: Model, accept: Callable[[Model, Model], None]
) -> None:
    accept(quantized, original)
    accept(original, original)


def test_another_architecture(quantized: Model, original: Model) -> None:
    assert "it is a 'qwen2', and the original a 'llama'" in refusal(replace(quantized, architecture="qwen2"), original)


def test_another_shape(quantized: Model, original: Model) -> None:
    first, *others = quantized.tensors
    changed = replace(first, shape=(first.shape[0] // 2, first.shape[1]))
    assert f"'{first.name}' has shape {changed.shape}" in refusal(
        replace(quantized, tensors=(changed, *others)), original
    )


def test_a_tensor_too_few_or_too_many(quantized: Model, original: Model) -> None:
    fewer = replace(quantized, tensors=tuple(t for t in quantized.tensors if t.name != "blk.1.attn_q.weight"))
    assert "it lacks 'blk.1.attn_q.weight'" in refusal(fewer, original)
    assert "it has 'blk.1.attn_q.weight'" in refusal(original, replace(fewer, source="fewer"))


def test_another_setting(quantized: Model, original: Model) -> None:
    changed = with_metadata(quantized, llama__rope__freq_base=np.float32(500))
    assert "llama.rope.freq_base is 500.0" in refusal(changed, original).replace("np.float32(500.0)", "500.0")


def test_another_tokenizer(quantized: Model, original: Model) -> None:
    tokens = list(original.metadata["tokenizer.ggml.tokens"])  # type: ignore[arg-type]
    swapped = with_metadata(quantized, tokenizer__ggml__tokens=[tokens[1], tokens[0], *tokens[2:]])
    assert "token 0 of its vocabulary" in refusal(swapped, original)
    shorter = with_metadata(quantized, tokenizer__ggml__tokens=tokens[:-1])
    assert f"has {len(tokens) - 1} tokens, and the original's {len(tokens)}" in refusal(shorter, original)
    other = with_metadata(quantized, tokenizer__ggml__pre="qwen2")
    assert "tokenizer.ggml.pre is 'qwen2'" in refusal(other, original)


def test_names_of_unused_tokens_are_nobodys_business(
    quantized: Model, original: Model, accept: Callable[[Model, Model], None]
) -> None:
    tokens = list(original.metadata["tokenizer.ggml.tokens"])  # type: ignore[arg-type]
    kinds = np.array(original.metadata["tokenizer.ggml.token_type"])
    kinds[5] = 5
    padded = with_metadata(original, tokenizer__ggml__token_type=kinds)
    accept(with_metadata(quantized, tokenizer__ggml__tokens=[*tokens[:5], "<pad>", *tokens[6:]]), padded)


def test_weights_of_a_fine_tune_are_a_warning(quantized: Model, original: Model, told: list[str]) -> None:
    changed = with_metadata(quantized, thriftbit__source__fingerprint="f" * 64)
    told.clear()  # what opening the files said
    check_belongs(changed, original)
    assert len(told) == 1 and "made from other weights" in told[0]


def test_a_file_without_the_output_matrix_that_the_original_has(
    quantized: Model, original: Model, told: list[str]
) -> None:
    without = replace(quantized, tensors=tuple(t for t in quantized.tensors if t.name != "output.weight"))
    assert "it lacks output.weight, and the original's differs from its embedding" in refusal(without, original)
    embedding = next(tensor for tensor in original.tensors if tensor.name == "token_embd.weight")
    repeated = tuple(replace(embedding, name=t.name) if t.name == "output.weight" else t for t in original.tensors)
    told.clear()  # what opening the files said
    check_belongs(without, replace(original, tensors=repeated))
    assert len(told) == 1 and "other weights" in told[0]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (np.array([11, 11, 10, 0], np.int32), np.array([11, 11, 10, 0], np.int32), True),
        (np.array([11, 11, 10, 0], np.int32), np.array([11, 11, 10, 1], np.int32), False),
        (np.array([4, 4, 4], np.uint32), np.array([4, 4], np.uint32), False),
        (np.array([0.5, 1.0], np.float32), np.array([0.5 + 1e-8, 1.0], np.float32), True),
        (np.array([0.5, 1.0], np.float32), np.array([0.6, 1.0], np.float32), False),
        (np.uint32(4), np.array([4, 4, 4], np.int32), True),
        (np.uint32(4), np.array([4, 4, 2], np.int32), False),
        (np.array([True, False]), np.array([True, False]), True),
        (["a", "b"], ["a", "b"], True),
        (["a", "b"], ["a", "c"], False),
        (["a", "b"], ["a"], False),
        ("a", np.uint32(4), False),
        (["a", "b"], np.array([1, 2], np.int32), False),
    ],
)
def test_lists_among_the_settings_are_compared_by_value(
    quantized: Model,
    original: Model,
    accept: Callable[[Model, Model], None],
    one: object,
    other: object,
    same: bool,
) -> None:
    ours = with_metadata(quantized, llama__rope__dimension_sections=one)
    theirs = with_metadata(original, llama__rope__dimension_sections=other)
    if same:
        accept(ours, theirs)
    else:
        assert "llama.rope.dimension_sections is" in refusal(ours, theirs)


def test_a_file_with_lists_belongs_to_itself(quantized: Model, accept: Callable[[Model, Model], None]) -> None:
    lists = with_metadata(quantized, llama__attention__head_count_kv=np.array([2, 2, 2], np.int32))
    accept(lists, lists)


def test_a_list_in_the_place_of_a_text_or_too_few_kinds_is_a_difference_and_no_traceback(
    quantized: Model, original: Model
) -> None:
    odd = with_metadata(quantized, tokenizer__ggml__pre=np.array([1, 2], np.int32))
    assert "its tokenizer differs" in refusal(odd, original)
    few = with_metadata(original, tokenizer__ggml__token_type=np.array([1], np.int32))
    other = with_metadata(quantized, tokenizer__ggml__tokens=["x"] * len(original.metadata["tokenizer.ggml.tokens"]))  # type: ignore[arg-type]
    assert "token 0 of its vocabulary" in refusal(other, few)
