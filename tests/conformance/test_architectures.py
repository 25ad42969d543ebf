"""Every model family, proven end to end: transformers' logits are llama.cpp's logits.

A tiny random model is saved as a checkpoint, mapped by our tables, written as an F32 GGUF and run by real llama.cpp, with a
cache in F32 and without flash attention, so that both compute in float32 throughout.
"""

from __future__ import annotations

from pathlib import Path

import cyllama.llama.llama_cpp as llama_cpp
import numpy as np
import pytest
import torch

from .tiny_models import TINY_MODELS, TOKENS, VOCABULARY, TinyModel, reference_logits, save, tokens
from thriftbit.containers.gguf_writer import Entry, GGUFWriter, layout
from thriftbit.formats import format_named
from thriftbit.sources.architectures import architecture_from_gguf, find_architecture, known_architectures
from thriftbit.sources.checkpoint import Checkpoint, open_checkpoint
from thriftbit.sources.model import Metadata
from thriftbit.sources.tensor import FloatArray, Tensor

# Largest difference of any logit, in units of the logits' standard deviation. float32 rounds at 1e-7; the sums of a few
# layers, in another order, make it some tens of that.
TOLERANCE = 5e-5
GGML_TYPE_F32 = 0


@pytest.fixture(autouse=True)
def quiet_single_thread() -> None:
    torch.set_num_threads(1)
    llama_cpp.disable_logging()


class Model(llama_cpp.LlamaModel):
    """cyllama 0.2.18 asks its model for a vocabulary size that it does not have."""

    n_vocab = VOCABULARY


def write_f32(path: Path, metadata: Metadata, tensors: list[Tensor]) -> None:
    f32 = format_named("F32")
    planned = layout(metadata, [Entry(tensor.name, tensor.shape, f32) for tensor in tensors])
    with GGUFWriter(path, planned) as writer:
        for tensor in tensors:
            writer.write(tensor.name, (f32.encode(tensor.load(*rows)) for rows in tensor.chunks(4096)))


def llama_cpp_logits(path: Path) -> FloatArray:
    """-> (TOKENS, vocabulary)"""
    model_settings = llama_cpp.LlamaModelParams()
    model_settings.n_gpu_layers = 0
    model_settings.use_extra_bufts = False  # no repacked weights: they are computed with in fewer bits
    model = Model(str(path), model_settings, verbose=False)
    settings = llama_cpp.LlamaContextParams()
    settings.n_ctx = 256
    settings.n_threads = settings.n_threads_batch = 1
    settings.type_k = settings.type_v = GGML_TYPE_F32
    settings.flash_attn_type = 0
    context = llama_cpp.LlamaContext(model, settings, verbose=False)
    batch = llama_cpp.LlamaBatch(n_tokens=TOKENS, embd=0, n_seq_max=1)
    for position, token in enumerate(tokens()):
        batch.add(token, position, [0], True)
    context.decode(batch)
    return np.array([context.get_logits_ith(position) for position in range(TOKENS)], dtype=np.float32)


def to_gguf(checkpoint: Checkpoint, path: Path) -> None:
    architecture = find_architecture(checkpoint.config)
    metadata = {
        "general.architecture": architecture.gguf_name,
        "tokenizer.ggml.model": "no_vocab",
        **architecture.metadata(checkpoint.config),
    }
    write_f32(path, metadata, architecture.map_tensors(checkpoint))


@pytest.mark.parametrize("tiny", TINY_MODELS, ids=lambda tiny: tiny.name)
def test_logits_are_those_of_transformers(tiny: TinyModel, tmp_path: Path) -> None:
    model = tiny.build()
    checkpoint = open_checkpoint(save(model, tmp_path))
    to_gguf(checkpoint, tmp_path / "model.gguf")
    expected = reference_logits(model).numpy()
    difference = np.abs(llama_cpp_logits(tmp_path / "model.gguf") - expected).max() / expected.std()
    print(tiny.name, difference)
    assert difference < TOLERANCE
