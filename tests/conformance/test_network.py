"""Every model family, computed layer by layer: the logits are those of transformers' own forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from thriftbit.network.configuration import configuration_of
from thriftbit.network.network import Network
from thriftbit.network.weights import Weights
from thriftbit.quantization.logit_check import WeightComparison, original_parameters
from thriftbit.sources.architectures import find_architecture, from_gguf
from thriftbit.sources.checkpoint import open_checkpoint
from thriftbit.sources.model import Model

from .tiny_models import TINY_MODELS, VOCABULARY, TinyModel, save, tokens

TOLERANCE = 1e-5  # of the logits' standard deviation: float32 sums in another order
ROUNDED = 1e-4  # where weights are stored in another form and rounded, and where many layers add up the differences
MANY_LAYERS = 20


def open_tiny(tiny: TinyModel, folder: Path) -> Model:
    """Return as `open_model` would, but these models have no tokenizer."""
    checkpoint = open_checkpoint(save(tiny.build(), folder))
    architecture = find_architecture(checkpoint.config)
    return Model(
        architecture.gguf_name,
        architecture.metadata(checkpoint.config),
        tuple(architecture.map_tensors(checkpoint)),
        str(folder),
        config=checkpoint.config,
    )


@torch.no_grad()
def layer_by_layer(
    model: Model, texts: torch.Tensor, look: Callable[[str, torch.nn.Module], None] = lambda prefix, layer: None
) -> torch.Tensor:
    """look: is shown each layer. Returns float32 (texts, TOKENS, VOCABULARY)."""
    network, weights = Network(configuration_of(model), torch.device("cpu")), Weights(model)
    batches = texts.split(1)  # each on its own, and all of them through one layer before the next
    hidden = []
    for number, batch in enumerate(batches):
        network.texts = number
        hidden.append(network.embed(weights, batch))
    for index in range(network.layers):
        with network.layer(index, weights) as layer:
            look(f"{network.layers_name}.{index}.", layer)
            for number, states in enumerate(hidden):
                network.texts = number
                hidden[number] = network.call(index, layer, states)
    positions = torch.cat(hidden).flatten(0, 1)
    parts = [network.head(weights, *part)(positions) for part in ((0, 50), (50, VOCABULARY))]
    return torch.cat(parts, dim=1).unflatten(0, texts.shape)


@pytest.mark.parametrize("source", ["folder", "gguf"])
@pytest.mark.parametrize("tiny", TINY_MODELS, ids=lambda tiny: tiny.name)
@torch.no_grad()
def test_logits_are_those_of_the_whole_model(
    tiny: TinyModel, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # no tiny model was trained on 8192 tokens
    monkeypatch.setitem(from_gguf.LLAMA3_SETTINGS, "original_max_position_embeddings", 64)
    model = open_tiny(tiny, tmp_path)
    if source == "gguf":
        model = replace(model, config=None)
    rounded = any(tensor.name.endswith("ssm_a") or f"blk.{MANY_LAYERS}." in tensor.name for tensor in model.tensors)
    tolerance = ROUNDED if rounded else TOLERANCE
    texts = torch.tensor([tokens(), [*tokens()[5:], *tokens()[:5]]])
    expected = tiny.build()(input_ids=texts).logits
    if source == "gguf":
        assert (layer_by_layer(model, texts) - expected).abs().max() < tolerance * expected.std()
        return
    comparison = WeightComparison(original_parameters(replace(model, folder=tmp_path)), quantized=False)
    comparison.compare_tables(Weights(model))
    found = layer_by_layer(model, texts, comparison.compare_layer)
    assert (found - expected).abs().max() < tolerance * expected.std()
    assert comparison.compared > 2 and comparison.differing == {}  # the check of `quantize` gives no false alarm
