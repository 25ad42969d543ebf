"""Calibration measures what the whole model would say, streams or not, and rounding with it pays on unseen text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from thriftbit import open_model
from thriftbit.errors import ThriftbitError
from thriftbit.formats import FORMATS
from thriftbit.network.configuration import configuration_of
from thriftbit.network.network import Network
from thriftbit.network.stored_parameters import StoredParameter
from thriftbit.network.weights import Weights
from thriftbit.quantization import calibration
from thriftbit.quantization.calibration import calibrate
from thriftbit.quantization.calibration_data import INDEX, Calibration, finish_calibration, open_calibration
from thriftbit.quantization.rounding import round_matrix
from thriftbit.sources.model import Model

WINDOWS = np.random.default_rng(0).integers(0, 250, (16, 48))


@pytest.fixture(autouse=True)
def single_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def model(tiny_llama: Path) -> Model:
    return open_model(tiny_llama)


@pytest.fixture
def calibrated(model: Model, tmp_path: Path) -> Calibration:
    return calibrate(model, WINDOWS, tmp_path / "calibration")


def test_every_matrix_in_a_layer_has_data(model: Model, calibrated: Calibration) -> None:
    matrices = {tensor.name for tensor in model.tensors if tensor.name.startswith("blk.") and tensor.rows > 1}
    assert calibrated.names == matrices
    assert calibrated.missing == ()
    assert calibrated.tokens == 14 * 48
    for tensor in model.tensors:
        if tensor.name in matrices:
            curvature, check = calibrated.curvature(tensor.name), calibrated.check(tensor.name)
            assert curvature.rows is not None
            assert curvature.columns.shape == (tensor.width, tensor.width)
            assert curvature.rows.shape == (tensor.rows, tensor.rows)
            assert check.inputs.shape == (calibration.CHECKED_TOKENS, tensor.width)
            assert check.gradients.shape == (calibration.CHECKED_TOKENS, tensor.rows)
            assert calibrated.sizes(tensor.name).shape == WINDOWS.shape


def test_importance_is_the_mean_square_of_what_enters(model: Model, calibrated: Calibration) -> None:
    weights, network = Weights(model), Network(configuration_of(model), torch.device("cpu"))
    used = torch.from_numpy(WINDOWS[np.arange(16) % 8 != 7])
    seen: list[torch.Tensor] = []
    with torch.no_grad():
        hidden = network.embed(weights, used)
        with network.layer(0, weights) as layer:
            hook = layer.self_attn.q_proj.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
            network.call(0, layer, hidden)
            hook.remove()
    expected = seen[0].square().mean(dim=(0, 1)).numpy()
    np.testing.assert_allclose(calibrated.importance("blk.0.attn_q.weight"), expected, rtol=5e-3)


def test_a_token_counts_the_product_of_its_sizes(tmp_path: Path) -> None:
    """As it is in the file, both moments against sums over tokens, one by one, of w times unit vectors' products"""
    random = np.random.default_rng(3)
    held, shape = np.array([False, True, False]), (3, 7)
    inputs, gradients = (
        (random.standard_normal((*shape, n)) * 10.0 ** random.uniform(-2, 1, (*shape, 1))).astype(np.float32)
        for n in (6, 4)
    )
    inputs[0, 2] = gradients[2, 5] = 0  # neither may count, nor divide by zero
    moments = calibration._Moments.of(torch.nn.Linear(6, 4), torch.device("cpu"))
    moments.add(torch.from_numpy(inputs), torch.from_numpy(gradients), held)
    order, along = np.array([2, 0, 3, 1]), np.array([1, 0, 2, 5, 4, 3])
    calibration._write(tmp_path, StoredParameter("blk.0.attn_q.weight", order, along), moments, seed=0)
    columns, rows, counts = np.zeros((6, 6)), np.zeros((4, 4)), []
    for x, g in zip(inputs[~held].reshape(-1, 6)[:, along], gradients[~held].reshape(-1, 4)[:, order], strict=True):
        counts.append(np.linalg.norm(x) * np.linalg.norm(g))
        if counts[-1]:
            columns += counts[-1] * np.outer(x, x) / (x @ x)
            rows += counts[-1] * np.outer(g, g) / (g @ g)
    scale = np.sqrt(np.mean(np.square(counts))) / np.sum(counts)
    found = finish_calibration(tmp_path, ["blk.0.attn_q.weight"], [], [], WINDOWS, 0).curvature("blk.0.attn_q.weight")
    np.testing.assert_allclose(found.columns, columns * scale, rtol=1e-4, atol=1e-6)
    assert found.rows is not None
    np.testing.assert_allclose(found.rows, rows * scale, rtol=1e-4, atol=1e-6)
    assert found.tokens == pytest.approx(np.sum(counts) ** 2 / np.sum(np.square(counts)), rel=1e-4)
    assert moments.sizes[0][0, 2] == moments.sizes[0][2, 5] == 0


@pytest.mark.parametrize("name", ["blk.0.attn_q.weight", "blk.1.attn_k.weight", "blk.1.ffn_down.weight"])
def test_it_foretells_the_divergence(model: Model, calibrated: Calibration, name: str) -> None:
    """Half of the mean of (gᵀ E x)² is the divergence of the model with E in it, whatever the order of rows in the
    container. One token is drawn at each place, so it is so on average only."""
    tensor = next(tensor for tensor in model.tensors if tensor.name == name)
    random = np.random.default_rng(5)
    # one row only: were rows in another order, another row's gradient would be taken
    ratios = []
    for row in random.choice(tensor.rows, 6, replace=False):
        errors = np.zeros((tensor.rows, tensor.width), np.float32)
        errors[row] = random.standard_normal(tensor.width) * np.abs(tensor.load()).mean() * 0.3
        foretold = 0.5 * calibrated.curvature(name).cost(errors)
        ratios.append(_divergence(model, name, errors) / foretold)
    assert 0.3 < np.exp(np.mean(np.log(ratios))) < 3


def _divergence(model: Model, name: str, errors: np.ndarray) -> float:
    from dataclasses import replace

    from thriftbit.measurement.comparison import compare
    from thriftbit.measurement.scores import Passage

    def changed(start: int, stop: int) -> np.ndarray:
        return tensor.load(start, stop) + errors[start:stop]

    tensor = next(tensor for tensor in model.tensors if tensor.name == name)
    tensors = tuple(replace(t, read=changed) if t.name == name else t for t in model.tensors)
    network = Network(configuration_of(model), torch.device("cpu"))
    passages = [Passage(window.tolist(), range(47)) for window in WINDOWS]
    scores = compare(network, [Weights(model), Weights(replace(model, tensors=tensors))], passages)[1]
    return float(np.mean([score.divergence.mean() for score in scores]))


def test_rounding_with_it_pays_on_tokens_held_back(model: Model, calibrated: Calibration) -> None:
    plain_cost = rounded_cost = 0.0
    for tensor in model.tensors:
        if tensor.name in calibrated.names:
            format, rows = FORMATS["Q4_0"], tensor.load()
            plain = format.encode(rows, calibrated.importance(tensor.name))
            rounded = round_matrix(rows, format, calibrated.curvature(tensor.name), plain)
            check = calibrated.check(tensor.name)
            plain_cost += check.cost(rows - format.decode(plain))
            rounded_cost += check.cost(rows - format.decode(rounded))
    assert rounded_cost < 0.9 * plain_cost


def test_ranges_of_the_vocabulary_do_not_matter(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor for the draw, but where rounding decides. Over many draws the gradient is zero on average."""
    weights, network = Weights(model), Network(configuration_of(model), torch.device("cpu"))
    with torch.no_grad():
        hidden = [network.embed(weights, torch.from_numpy(WINDOWS))]
    gradients = []
    for vocabulary_bytes in (1 << 30, 4 * model.tensors[0].width * 37):
        monkeypatch.setattr(calibration, "VOCABULARY_BYTES", vocabulary_bytes)
        found = calibration._of_the_last(network, weights, hidden, torch.Generator().manual_seed(1))[0]
        assert found.mean(dim=(0, 1)).abs().max() < 0.2 * found.std()
        gradients.append(found)
    apart = (gradients[0] - gradients[1]).norm(dim=-1) > 0.01 * gradients[0].norm(dim=-1)
    assert float(apart.float().mean()) < 0.02


def test_moments_that_are_summed_in_pieces_are_the_same(
    model: Model, calibrated: Calibration, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(calibration, "TRIANGLE_COLUMNS", 24)
    pieces = calibrate(model, WINDOWS, tmp_path / "pieces")
    for name in calibrated.names:
        ours, others = pieces.curvature(name), calibrated.curvature(name)
        np.testing.assert_allclose(ours.columns, others.columns, rtol=1e-4, atol=1e-5 * others.columns.max())
        assert ours.rows is not None
        assert others.rows is not None
        np.testing.assert_allclose(ours.rows, others.rows, rtol=1e-4, atol=1e-5 * others.rows.max())


def test_the_same_twice(model: Model, calibrated: Calibration, tmp_path: Path) -> None:
    again = calibrate(model, WINDOWS, tmp_path / "again")
    first, second = (each.curvature("blk.0.ffn_up.weight") for each in (calibrated, again))
    np.testing.assert_array_equal(first.columns, second.columns)
    assert first.rows is not None and second.rows is not None
    np.testing.assert_array_equal(first.rows, second.rows)


def test_an_interrupted_one_is_refused(calibrated: Calibration) -> None:
    (calibrated.folder / INDEX).unlink()
    with pytest.raises(ThriftbitError, match="calibrate again"):
        open_calibration(calibrated.folder)
    assert not (calibrated.folder / "entering").exists()


@pytest.mark.parametrize("windows", [np.zeros((0, 48), np.int64), np.full((2, 48), 10**6)])
def test_text_that_cannot_be_used_is_refused(model: Model, windows: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ThriftbitError, match="calibration text"):
        calibrate(model, windows, tmp_path / "calibration")


def test_ten_words_are_enough_for_a_correct_answer(model: Model, tmp_path: Path) -> None:
    """Nothing is held back of a single window, and all moments are singular"""
    short = calibrate(model, WINDOWS[:1, :10], tmp_path / "short")
    assert short.tokens == 10
    assert short.check("blk.0.attn_q.weight").inputs.shape[0] == 0
    assert np.isfinite(short.curvature("blk.0.attn_q.weight").columns).all()
