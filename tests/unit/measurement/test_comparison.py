"""The streamed comparison says what the whole models say, however text and vocabulary are cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from thriftbit import make_plan, open_model, quantize
from thriftbit.measurement import comparison
from thriftbit.measurement.comparison import compare
from thriftbit.measurement.scores import Passage
from thriftbit.network.configuration import configuration_of
from thriftbit.network.network import Network
from thriftbit.network.weights import Weights
from thriftbit.sources.model import Model


@pytest.fixture(autouse=True)
def single_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def models(tiny_llama: Path, tmp_path: Path) -> list[Model]:
    """Return the original and two quantized versions."""
    original = open_model(tiny_llama)
    levels = []
    for preset in ("Q8_0", "Q2_K"):
        path = quantize(original, make_plan(original, preset), tmp_path / f"{preset}.gguf").path
        levels.append(open_model(path, allow_requantize=True))
    return [original, *levels]


def passages() -> list[Passage]:
    random = np.random.default_rng(1)
    return [
        Passage(random.integers(0, 250, length).tolist(), scored)
        for length, scored in ((40, range(20, 39)), (7, range(2, 6)), (40, range(39)), (23, [0, 5, 21]))
    ]


def whole_logits(folder: Path, model: Model, tokens: list[int]) -> torch.Tensor:
    """Return float64 (tokens, vocabulary), from transformers' own forward pass with the model's weights in it."""
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    weights = Weights(model)
    names = [name for name, _ in network.named_parameters() if "embed" not in name and "lm_head" not in name]
    state = weights.load(names) | {
        "model.embed_tokens.weight": torch.from_numpy(weights.embedding.load()),
        "lm_head.weight": torch.from_numpy(weights.output.load()),
    }
    network.load_state_dict(state)
    with torch.no_grad():
        return network(torch.tensor([tokens])).logits[0].double()


@pytest.mark.parametrize("vocabulary_bytes", [4 * 256 * 37, 1 << 30], ids=["many ranges", "one range"])
def test_scores_are_those_of_the_whole_models(
    tiny_llama: Path, models: list[Model], vocabulary_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "VOCABULARY_BYTES", vocabulary_bytes)
    monkeypatch.setattr(comparison, "POSITIONS", 11)
    network = Network(configuration_of(models[0]), torch.device("cpu"))
    found = compare(network, [Weights(model) for model in models], passages())
    for number, passage in enumerate(passages()):
        positions = torch.tensor(list(passage.scored))
        targets = torch.tensor(passage.tokens)[positions + 1]
        said = [whole_logits(tiny_llama, model, list(passage.tokens)).log_softmax(1)[positions] for model in models]
        for model, log_probabilities in zip(found, said, strict=True):
            expected = log_probabilities.gather(1, targets[:, None])[:, 0]
            np.testing.assert_allclose(model[number].log_probability, expected, atol=2e-5)
            divergence = (said[0].exp() * (said[0] - log_probabilities)).sum(1)
            np.testing.assert_allclose(model[number].divergence, divergence, atol=2e-5)
            same = log_probabilities.argmax(1) == said[0].argmax(1)
            np.testing.assert_array_equal(model[number].same_top, same)
    assert found[2][0].divergence.mean() > 100 * found[1][0].divergence.mean() > 0


def test_a_model_does_not_diverge_from_itself(models: list[Model]) -> None:
    network = Network(configuration_of(models[0]), torch.device("cpu"))
    first, again = compare(network, [Weights(models[0])] * 2, passages())
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.log_probability, other.log_probability)
        assert other.divergence.max() < 1e-6 and other.same_top.all()


def test_progress_ends_at_one(models: list[Model]) -> None:
    told: list[float] = []
    network = Network(configuration_of(models[0]), torch.device("cpu"))
    compare(network, [Weights(models[0])], passages(), lambda what, fraction: told.append(fraction))
    assert told == sorted(told) and told[-1] == 1
