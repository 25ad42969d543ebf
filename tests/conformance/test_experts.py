"""What calibration finds out about experts is what transformers' own code multiplies their matrices with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from thriftbit import make_plan, quantize
from thriftbit.containers.gguf_reader import read_gguf
from thriftbit.formats import format_named
from thriftbit.network import products
from thriftbit.quantization import calibration_data
from thriftbit.quantization.calibration import calibrate_windows
from thriftbit.quantization.calibration_data import Calibration, held_back, open_calibration, save_part
from thriftbit.quantization.importance import read_importance
from thriftbit.quantization.importance_file import write_importance
from thriftbit.quantization.tuning import tune_in
from thriftbit.sources.model import Model

from .test_network import open_tiny
from .tiny_models import TINY_MODELS, VOCABULARY, TinyModel

WIDER = {"hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32}  # blocks of 32 fit in
EXPERTS = {
    tiny.name: replace(tiny, config=tiny.config | {key: WIDER[key] for key in WIDER if key in tiny.config})
    for tiny in TINY_MODELS
    if tiny.name in ("mixtral", "qwen3-moe")
}
WINDOWS = np.random.default_rng(0).integers(3, VOCABULARY, (16, 24))
PARTS = {"gate_up_proj": ("ffn_gate_exps", "ffn_up_exps"), "down_proj": ("ffn_down_exps",)}


@pytest.fixture(params=list(EXPERTS))
def tiny(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> TinyModel:
    torch.set_num_threads(1)
    monkeypatch.setattr(products, "_processor_has_them", lambda: False)
    return EXPERTS[request.param]


@pytest.fixture
def model(tiny: TinyModel, tmp_path: Path) -> Model:
    return open_tiny(tiny, tmp_path / "model")


@pytest.fixture
def calibration(model: Model, tmp_path: Path) -> Calibration:
    return calibrate_windows(model, WINDOWS, tmp_path / "calibration")


@torch.no_grad()
def multiplied(
    tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Return the mean squares (experts, width) and tokens (experts,) of each tensor, by its name in the container, as
    they are seen in transformers' own loop."""
    whole, linear = tiny.build(), torch.nn.functional.linear
    whole.config._experts_implementation = "eager"
    squares: dict[int, torch.Tensor] = {}
    counts: dict[int, int] = {}

    def spy(inputs: torch.Tensor, weight: torch.Tensor, *bias: torch.Tensor) -> torch.Tensor:
        here = weight.data_ptr()
        squares[here] = squares.get(here, torch.zeros(())) + inputs.reshape(-1, inputs.shape[-1]).square().sum(dim=0)
        counts[here] = counts.get(here, 0) + inputs[..., 0].numel()
        return linear(inputs, weight, *bias)

    monkeypatch.setattr(torch.nn.functional, "linear", spy)
    whole(input_ids=torch.from_numpy(WINDOWS[~held_back(len(WINDOWS))]))
    monkeypatch.undo()
    found = {}
    for index, layer in enumerate(whole.model.layers):
        for joined, names in PARTS.items():
            places = [matrix.data_ptr() for matrix in getattr(layer.mlp.experts, joined)]
            tokens = np.array([counts.get(place, 0) for place in places])
            nothing = torch.zeros(getattr(layer.mlp.experts, joined).shape[-1])
            means = [(squares.get(place, nothing) / max(1, counts.get(place, 0))).numpy() for place in places]
            for name in names:
                found[f"blk.{index}.{name}.weight"] = (np.stack(means), tokens)
    return found


def test_importance_is_of_what_each_expert_gets(
    tiny: TinyModel, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = multiplied(tiny, monkeypatch)
    assert calibration.experts == set(expected)
    assert not calibration.missing
    monkeypatch.setattr(calibration_data, "FEWEST_TOKENS", 0)
    for name, (means, tokens) in expected.items():
        assert tokens.sum() > 0
        np.testing.assert_array_equal(calibration.expert_tokens(name), tokens)
        np.testing.assert_allclose(
            calibration.importance(name), means, rtol=4e-3, atol=1e-6
        )  # half precision between layers


def test_they_are_encoded_with_it_and_the_unheard_are_named(
    model: Model, calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "blk.1.ffn_up_exps.weight"
    tokens = calibration.expert_tokens(name)
    rarest = int(tokens.argmin())
    monkeypatch.setattr(calibration_data, "FEWEST_TOKENS", int(tokens.min()) + 1)
    importance = calibration.importance(name)
    np.testing.assert_allclose(
        importance[rarest], np.average(calibration._read(name, "importance"), axis=0, weights=tokens), rtol=1e-5
    )
    result = quantize(model, make_plan(model, "Q4_0"), tmp_path / "experts.gguf", calibration=calibration)
    assert f"few tokens of the text reached: {rarest}" in result.kept_plain[name]
    assert result.coverage is not None and result.coverage.unreached[name] == (tokens == tokens.min()).sum()
    file = read_gguf(result.path)
    (info,) = (info for info in file.tensors if info.name == name)
    (tensor,) = (tensor for tensor in model.tensors if tensor.name == name)
    format, rows = format_named("Q4_0"), tensor.matrix_rows
    written = file.read(info).reshape(tensor.rows, -1)
    for expert in range(len(tokens)):
        part = slice(expert * rows, (expert + 1) * rows)
        expected = format.encode(tensor.load(part.start, part.stop), importance[expert])
        np.testing.assert_array_equal(written[part], expected)


def test_an_expert_that_nobody_asked_weighs_what_all_do(
    calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "blk.0.ffn_down_exps.weight"
    importance = calibration._read(name, "importance")
    tokens = np.zeros(len(importance), np.int64)
    save_part(calibration.folder, calibration.made_of, name, importance=0 * importance, tokens=tokens)
    np.testing.assert_array_equal(calibration.importance(name), np.ones_like(importance))


def test_as_a_file_it_is_what_llama_cpp_has(model: Model, calibration: Calibration, tmp_path: Path) -> None:
    write_importance(calibration, tmp_path / "imatrix.gguf")
    back = read_importance(tmp_path / "imatrix.gguf")
    for tensor in model.tensors:
        if tensor.name in calibration.experts:
            values = back.for_tensor(tensor)
            assert values is not None
            heard = calibration.expert_tokens(tensor.name) > 0
            np.testing.assert_allclose(values[heard], calibration.importance(tensor.name)[heard], rtol=1e-5)


def test_what_is_around_them_is_tuned(model: Model, calibration: Calibration, tmp_path: Path) -> None:
    plan = make_plan(model, "Q4_0")
    rounded = tune_in(model, plan, calibration, tmp_path / "tuned")
    assert all(name in rounded for name in calibration.names)
    result = quantize(model, plan, tmp_path / "tuned.gguf", calibration=calibration, rounded=rounded)
    assert set(calibration.experts) <= set(result.kept_plain)
    assert open_calibration(calibration.folder).experts == calibration.experts
