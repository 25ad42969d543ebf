"""Every model family, proven end to end: transformers' logits are llama.cpp's logits.

A tiny random model is saved as a checkpoint, mapped by our tables, written as an F32 GGUF and run by real llama.cpp,
with a cache in F32 and without flash attention, so that both compute in float32 throughout.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from thriftbit.containers.entry import Entry
from thriftbit.containers.gguf_values import Metadata
from thriftbit.containers.gguf_writer import GGUFWriter, layout
from thriftbit.formats import format_named
from thriftbit.sources.architectures import architecture_from_gguf, find_architecture, known_architectures
from thriftbit.sources.architectures.spelling import other_part, text_name
from thriftbit.sources.checkpoint import Checkpoint, open_checkpoint
from thriftbit.sources.tensor import FloatArray, Tensor

from . import llama_cpp
from .tiny_models import TINY_MODELS, TinyModel, has_gelu, reference_logits, save, tokens

# Largest difference of any logit, in units of the logits' standard deviation. float32 rounds at 6e-8, and the sums of a
# few layers, in another order, make it some hundred times that.
TOLERANCE = 1e-4
# llama.cpp looks GELU up in half precision, and so does our reference (`GgmlGelu`). What float32 rounding leaves
# between the two pushes one activation in some hundred over to the neighbouring half, which is 5e-4 of its value
# away.
TOLERANCE_GELU = 2e-3
# Delta nets are tried with the epsilon that they are published with, 1e-6. Norms of short vectors then carry rounding
# on: transformers itself is 3e-4 from its own computation in float64.
TOLERANCE_DELTA_NET = 1e-3
MANY_LAYERS = 8


@pytest.fixture(autouse=True)
def quiet_single_thread() -> None:
    torch.set_num_threads(1)


def write_f32(path: Path, metadata: Metadata, tensors: list[Tensor]) -> None:
    f32 = format_named("F32")
    planned = layout(metadata, [Entry(tensor.name, tensor.shape, f32) for tensor in tensors])
    with GGUFWriter(path, planned) as writer:
        for tensor in tensors:
            writer.write(tensor.name, (f32.encode(tensor.load(*rows)) for rows in tensor.chunks(4096)))


def llama_cpp_logits(path: Path) -> FloatArray:
    """Return (TOKENS, vocabulary)."""
    return llama_cpp.logits(path, tokens())


def to_gguf(checkpoint: Checkpoint, path: Path) -> None:
    architecture = find_architecture(checkpoint.config)
    metadata = {
        "general.architecture": architecture.gguf_name,
        "tokenizer.ggml.model": "no_vocab",
        **architecture.metadata(checkpoint.config),
    }
    write_f32(path, metadata, architecture.map_tensors(checkpoint))


def first_of_every_class() -> list[TinyModel]:
    """Return one model of each class, with few layers. Every tensor of it is tried, and a second model of the class
    would show nothing new. Neither would a model that sees pictures whose text part is here already."""
    few = [tiny for tiny in TINY_MODELS if tiny.config.get("num_hidden_layers", 0) <= MANY_LAYERS]
    first = list({tiny.model_class: tiny for tiny in reversed(few)}.values())
    texts = [tiny.config for tiny in first]
    return [tiny for tiny in first if tiny.config.get("text_config") not in texts]


def each(tiny_models: Iterable[TinyModel]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("tiny", tiny_models, ids=lambda tiny: tiny.name)


def tolerance(model: PreTrainedModel) -> float:
    is_delta_net = hasattr(model.config.get_text_config(), "linear_num_key_heads")
    return TOLERANCE_GELU if has_gelu(model) else TOLERANCE_DELTA_NET if is_delta_net else TOLERANCE


def test_every_class_has_a_tiny_model() -> None:
    classes = {name for architecture in known_architectures().values() for name in architecture.classes}
    older_names = {"LLaMAForCausalLM", "Ernie4_5_ForCausalLM", "LFM2ForCausalLM"}
    assert classes - older_names == {tiny.model_class for tiny in TINY_MODELS}


@each(TINY_MODELS)
def test_logits_are_those_of_transformers(tiny: TinyModel, tmp_path: Path) -> None:
    model = tiny.build()
    to_gguf(open_checkpoint(save(model, tmp_path)), tmp_path / "model.gguf")
    expected = reference_logits(model).numpy()
    difference = np.abs(llama_cpp_logits(tmp_path / "model.gguf") - expected).max() / expected.std()
    assert difference < tolerance(model)


@pytest.mark.parametrize("name", ["qwen2-moe", "stablelm", "phi", "olmoe", "gpt-oss"])
def test_an_output_matrix_is_written_where_llama_cpp_does_not_take_the_embedding(name: str, tmp_path: Path) -> None:
    tiny = next(tiny for tiny in TINY_MODELS if tiny.name == name)
    model = replace(tiny, config=tiny.config | {"tie_word_embeddings": True}).build()
    to_gguf(open_checkpoint(save(model, tmp_path)), tmp_path / "model.gguf")
    expected = reference_logits(model).numpy()
    assert np.abs(llama_cpp_logits(tmp_path / "model.gguf") - expected).max() < tolerance(model) * expected.std()


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3-untied", "phi3"])
def test_a_trained_output_matrix_is_kept_although_the_configuration_says_tied(name: str, tmp_path: Path) -> None:
    """As fine-tunes with new tokens are published: transformers does not tie two matrices that differ."""
    model = next(tiny for tiny in TINY_MODELS if tiny.name == name).build()
    model.config.tie_word_embeddings = True
    to_gguf(open_checkpoint(save(model, tmp_path)), tmp_path / "model.gguf")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager")
    expected = reference_logits(loaded.eval()).numpy()
    difference = np.abs(llama_cpp_logits(tmp_path / "model.gguf") - expected).max() / expected.std()
    assert difference < tolerance(loaded)


@each(first_of_every_class())
def test_a_misplaced_tensor_would_be_noticed(tiny: TinyModel) -> None:
    """The proof above is as sharp as the logits are sensitive: every tensor, its rows displaced by one, moves them
    far."""
    model = tiny.build()
    expected = reference_logits(model)
    for name, parameter in model.named_parameters():
        if other_part(name):
            continue
        original = parameter.detach().clone()
        with torch.no_grad():
            parameter.copy_(original.roll(1, dims=0 if len(original) > 1 else -1))
        difference = (reference_logits(model) - expected).abs().max() / expected.std()
        with torch.no_grad():
            parameter.copy_(original)
        assert difference > 10 * TOLERANCE_GELU, name


def text_parameters(model: PreTrainedModel) -> dict[str, FloatArray]:
    """Return the text model's parameters, under the names that it has for them where it is alone."""
    prefixes = find_architecture(model.config.to_dict()).prefixes
    named = {text_name(name, prefixes): values for name, values in model.state_dict().items() if not other_part(name)}
    return {name: values.numpy() for name, values in named.items()}


@each(TINY_MODELS)
def test_tensors_come_back_as_transformers_has_them(tiny: TinyModel, tmp_path: Path) -> None:
    model = tiny.build()
    checkpoint = open_checkpoint(save(model, tmp_path))
    tied = {"lm_head.weight"} if model.config.get_text_config().tie_word_embeddings else set()
    architecture = find_architecture(checkpoint.config)
    metadata = architecture.metadata(checkpoint.config)
    mapped = architecture.map_tensors(checkpoint)
    returned = architecture_from_gguf(architecture.gguf_name, metadata).unmap_tensors(mapped, metadata)
    # They come back with their multipliers in them, and test_network.py computes with them so.
    entries = architecture.entries(architecture.dimensions(metadata))
    multiplied = {source for entry in entries if entry.row.multiplied for source in entry.sources}

    expected = text_parameters(model)
    assert {tensor.name for tensor in returned} - tied == set(expected) - tied
    for tensor in returned:
        if tensor.name not in tied:
            assert tensor.shape == expected[tensor.name].shape
            # Adding one and taking it away again costs a norm a rounding, a logarithm two; everything else is exact.
            if tensor.name in multiplied:
                continue
            allowed = 2.4e-7 if re.search(r"norm|A_log", tensor.name) else 0
            np.testing.assert_allclose(tensor.load().reshape(tensor.shape), expected[tensor.name], rtol=0, atol=allowed)


@each(TINY_MODELS)
def test_every_tensor_has_a_role_and_is_named_once(tiny: TinyModel, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(save(tiny.build(), tmp_path))
    mapped = find_architecture(checkpoint.config).map_tensors(checkpoint)
    assert all(tensor.role for tensor in mapped)
    assert len({tensor.name for tensor in mapped}) == len(mapped)
