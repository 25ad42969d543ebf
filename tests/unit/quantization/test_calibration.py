"""Calibration measures what the whole model would say, streams or not, and rounding with it pays on unseen text."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from thriftbit import open_model
from thriftbit.errors import ThriftbitError
from thriftbit.formats import FORMATS
from thriftbit.network.configuration import configuration_of
from thriftbit.network.network import Network
from thriftbit.network.shipped import Stored, StoredWeights, store_outputs
from thriftbit.network.states import Halves, States
from thriftbit.network.weights import Weights
from thriftbit.quantization import calibration_layer, calibration_tasks, moments
from thriftbit.quantization.calibration import calibrate_windows
from thriftbit.quantization.calibration_data import (
    INDEX,
    Calibration,
    finish_calibration,
    open_calibration,
    what_it_is_made_of,
)
from thriftbit.quantization.calibration_tasks import Batch, Order, PanelTask, Returned, _Met, _of_group
from thriftbit.quantization.engine.pool import Pool, pool_of
from thriftbit.quantization.rounding import round_matrix
from thriftbit.sources.model import Model

WINDOWS = np.random.default_rng(0).integers(0, 250, (16, 48))


@pytest.fixture(autouse=True)
def single_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> Model:
    return open_model(tiny_llama)


@pytest.fixture(scope="module")
def calibrated(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    torch.set_num_threads(1)
    return calibrate_windows(model, WINDOWS, tmp_path_factory.mktemp("calibrated") / "calibration")


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
            assert check.inputs.shape == (calibration_layer.CHECKED_TOKENS, tensor.width)
            assert check.gradients.shape == (calibration_layer.CHECKED_TOKENS, tensor.rows)
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


def test_a_token_counts_the_product_of_its_sizes(model: Model, tmp_path: Path) -> None:
    """As it is in the files, all moments against sums over tokens, one by one, of w times unit vectors' products. Two
    matrices share their inputs, in which a token counts with the gradients of both."""
    random = np.random.default_rng(3)
    held, shape = np.array([False, True, False]), (3, 7)
    inputs, *gradients = (
        (random.standard_normal((*shape, n)) * 10.0 ** random.uniform(-2, 1, (*shape, 1))).astype(np.float32)
        for n in (6, 4, 2)
    )
    inputs[0, 2] = gradients[0][2, 5] = gradients[1][2, 5] = 0  # neither may count, nor divide by zero
    inputs[2, 1, 3] = np.nan  # and this token is lost
    along = np.array([1, 0, 2, 5, 4, 3])
    orders = {"q": Order(np.array([2, 0, 3, 1]), along, True), "k": Order(None, along, True)}
    names = {"q": "blk.0.attn_q.weight", "k": "blk.0.attn_k.weight"}
    tensor = torch.from_numpy(inputs)
    met = {name: _Met(tensor, tensor, torch.from_numpy(g)) for name, g in zip(orders, gradients, strict=True)}
    held_tokens = np.repeat(held, 7)
    shared, of_each = _of_group(met, orders, torch.from_numpy(held_tokens))
    made = what_it_is_made_of(model, WINDOWS)
    layer = calibration_layer.Layer(tmp_path, made, 0)
    layer.begin(tmp_path / "captured", [Batch(0, 0, shape, held)], orders, names)
    layer.add(Returned(Halves.of(torch.zeros(21, 1)), (shared,), of_each))
    list(layer.write(Pool(1), "testing", 0, "cpu"))
    found = finish_calibration(tmp_path, made, layer.sharing, [], [], WINDOWS, layer.left_out)
    assert found.left_out == dict.fromkeys(names.values(), 1)

    x = inputs[~held].reshape(-1, 6)[:, along]
    good = np.isfinite(x).all(axis=1)
    x = x[good]
    of_q, of_k = (g[~held].reshape(14, -1)[good] for g in gradients)
    x_size, q_size, k_size = (np.linalg.norm(part, axis=1) for part in (x, of_q, of_k))
    together = np.hypot(q_size, k_size)
    for name, g, size in (("q", of_q[:, orders["q"].rows], q_size), ("k", of_k, k_size)):
        counts, columns, rows = x_size * size, np.zeros((6, 6)), np.zeros((len(g[0]), len(g[0])))
        for each, gradient, x_length, length, both in zip(x, g, x_size, size, together, strict=True):
            if x_length * length:
                columns += both / x_length * np.outer(each, each)
                rows += x_length / length * np.outer(gradient, gradient)
        wanted_trace = np.sqrt(np.mean(np.square(counts)))
        curvature = found.curvature(names[name])
        columns *= wanted_trace / np.trace(columns)
        np.testing.assert_allclose(curvature.columns, columns, atol=2e-3 * columns.max())
        rows *= wanted_trace / np.trace(rows)
        assert curvature.rows is not None
        np.testing.assert_allclose(curvature.rows, rows, atol=2e-3 * rows.max())
        assert curvature.tokens == pytest.approx(np.sum(counts) ** 2 / np.sum(np.square(counts)), rel=1e-4)
    assert found.sizes(names["q"])[0, 2] == found.sizes(names["q"])[2, 1] == 0


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


def test_ranges_of_the_vocabulary_do_not_matter(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor for the draw, but where rounding decides. Over many draws the gradient is zero on average."""
    weights, network = Weights(model), Network(configuration_of(model), torch.device("cpu"))
    with torch.no_grad():
        hidden = network.embed(weights, torch.from_numpy(WINDOWS)).flatten(0, 1)
    outside = Stored.of(tmp_path / "outside", weights.load(network.outside_names).items())
    stored = StoredWeights([outside], store_outputs(weights, tmp_path / "outputs", short=False))
    levels = calibration_tasks.LARGEST_LEVEL * torch.rand(len(hidden), generator=torch.Generator().manual_seed(1))
    gradients = []
    for vocabulary_bytes in (1 << 30, 4 * model.tensors[0].width * 37):
        monkeypatch.setattr(calibration_tasks, "VOCABULARY_BYTES", vocabulary_bytes)
        found = calibration_tasks.gradients_of_the_last(network, stored, hidden, levels)
        assert found.mean(dim=0).abs().max() < 0.2 * found.std()
        gradients.append(found)
    apart = (gradients[0] - gradients[1]).norm(dim=-1) > 0.01 * gradients[0].norm(dim=-1)
    assert float(apart.float().mean()) < 0.02


@pytest.mark.parametrize("panel", [24, 256])
def test_a_moment_in_panels_is_the_sum(panel: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (moments, calibration_tasks):
        monkeypatch.setattr(module, "PANEL", panel)
    monkeypatch.setattr(calibration_tasks, "CORNER", 16)
    monkeypatch.setattr(calibration_tasks, "CHUNK_TOKENS", 33)
    random = np.random.default_rng(0)
    vectors = random.standard_normal((100, 70)).astype(np.float32)
    shares = np.where(np.arange(100) % 7 == 3, 0, random.uniform(0, 2, 100)).astype(np.float32)
    states = States(tmp_path / "vectors", 100, 70, exact=True)
    states.write(0, torch.from_numpy(vectors))
    expected = (vectors * shares[:, None]).T @ (vectors * shares[:, None])
    exact = [calibration_tasks.moment_panel(PanelTask(states, shares, s, None)) for s in moments.panel_starts(70)]
    np.testing.assert_allclose(moments.from_panels(exact, None, 70), expected, rtol=1e-4, atol=1e-3)
    divisors = moments.roots(np.diag(expected).copy())
    kept = {
        f"{key}{start}": values
        for start in moments.panel_starts(70)
        for key, values in moments.packed(
            calibration_tasks.moment_panel(PanelTask(states, shares, start, divisors))
        ).items()
    }
    panels = moments.unpacked(kept.__getitem__, 70)
    found = moments.from_panels(panels, divisors, 70)
    np.testing.assert_allclose(found, expected, atol=1e-3 * expected.max())
    assert sum(values.nbytes for values in kept.values()) == 70 * 71  # half of it, in half precision


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the content of the files, as it counts: that of an archive's members, without when they were written."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                found |= {f"{path.name}/{name}": archive.read(name) for name in archive.namelist()}
        elif path.is_file() and not path.name.endswith(".lock"):
            found[path.name] = path.read_bytes()
    return found


@pytest.mark.parametrize("share", [0.1, 0.25, 0.6])
def test_an_interrupted_one_is_gone_on_with(
    share: float, model: Model, calibrated: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(what: str, done: float) -> None:
        if done > share:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate_windows(model, WINDOWS, tmp_path / "again", progress=interrupt)
    with pytest.raises(ThriftbitError, match="calibrate again"):
        open_calibration(tmp_path / "again")
    passed, call = list[int](), Network.call
    monkeypatch.setattr(Network, "call", lambda self, index, *rest: passed.append(index) or call(self, index, *rest))
    calibrate_windows(model, WINDOWS, tmp_path / "again")
    assert len(passed) < 2 * 2 * model.metadata["llama.block_count"]  # batches, passes
    assert files_of(tmp_path / "again") == files_of(calibrated.folder)


def test_the_same_bytes_for_1_2_and_4_workers_and_after_a_kill(
    tiny_llama: Path, calibrated: Calibration, tmp_path: Path
) -> None:
    """One worker made `calibrated`. Here a run with two is killed outright amid the backward pass, and gone on with by
    four."""
    code = f"""
import os, signal, numpy as np
from pathlib import Path
from thriftbit import open_model
from thriftbit.quantization.calibration import calibrate_windows
windows = np.random.default_rng(0).integers(0, 250, (16, 48))
def kill(what, share):
    if share > 0.6:
        os.kill(os.getpid(), signal.SIGKILL)
calibrate_windows(open_model({str(tiny_llama)!r}), windows, Path({str(tmp_path / "again")!r}), workers=2, progress=kill)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert (tmp_path / "again" / "unfinished").is_dir()
    calibrate_windows(open_model(tiny_llama), WINDOWS, tmp_path / "again", workers=4)
    pool_of(4).close()
    assert files_of(tmp_path / "again") == files_of(calibrated.folder)


def test_one_of_another_text_or_model_in_the_same_place_is_replaced(
    model: Model, calibrated: Calibration, tmp_path: Path
) -> None:
    folder = tmp_path / "there"
    shutil.copytree(calibrated.folder, folder)
    other = calibrate_windows(model, WINDOWS[:8], folder)
    assert other.made_of != calibrated.made_of and len(other.windows) == 8
    reversed_rows = replace(
        model,
        tensors=tuple(
            replace(t, read=lambda start, stop, t=t: t.load()[::-1][start:stop]) if "ffn_up" in t.name else t
            for t in model.tensors
        ),
    )
    assert calibrate_windows(reversed_rows, WINDOWS[:8], folder).made_of != other.made_of
    with pytest.raises(ThriftbitError, match="of another model"):
        other.check_belongs(reversed_rows)


@pytest.mark.parametrize("damage", ["empty index", "cut off", "missing", "of another"])
def test_a_damaged_one_is_made_again(
    damage: str, model: Model, calibrated: Calibration, tmp_path: Path, told: list[str]
) -> None:
    folder = tmp_path / "there"
    shutil.copytree(calibrated.folder, folder)
    victim = folder / "blk.1.ffn_up.weight.npz"
    if damage == "empty index":
        (folder / INDEX).write_bytes(b"")
    elif damage == "cut off":
        victim.write_bytes(victim.read_bytes()[:-100])
    elif damage == "missing":
        victim.unlink()
    else:
        calibrate_windows(model, WINDOWS[:8], tmp_path / "other")
        shutil.copy(tmp_path / "other" / victim.name, victim)
    with pytest.raises(ThriftbitError, match="calibrate again"):
        open_calibration(folder)
    (folder / INDEX).touch()
    calibrate_windows(model, WINDOWS, folder)
    assert files_of(folder) == files_of(calibrated.folder)
    assert any("It is made again" in line for line in told)


def test_bytes_that_changed_on_the_disk_are_noticed(model: Model, calibrated: Calibration, tmp_path: Path) -> None:
    folder = tmp_path / "there"
    shutil.copytree(calibrated.folder, folder)
    found = open_calibration(folder)
    victim = folder / "blk.1.ffn_down.weight.inputs.npz"
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    with pytest.raises(ThriftbitError, match=r"blk\.1\.ffn_down.* damaged"):
        for read in (found.curvature, found.check, found.sizes):
            read("blk.1.ffn_down.weight")
    assert not (folder / INDEX).exists()  # so that the next run makes it again


@pytest.mark.parametrize("windows", [np.zeros((0, 48), np.int64), np.full((2, 48), 10**6)])
def test_text_that_cannot_be_used_is_refused(model: Model, windows: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ThriftbitError, match="calibration text"):
        calibrate_windows(model, windows, tmp_path / "calibration")


def test_ten_words_are_enough_for_a_correct_answer(model: Model, tmp_path: Path) -> None:
    """Nothing is held back of a single window, and all moments are singular"""
    short = calibrate_windows(model, WINDOWS[:1, :10], tmp_path / "short")
    assert short.tokens == 10
    assert short.check("blk.0.attn_q.weight").inputs.shape[0] == 0
    assert np.isfinite(short.curvature("blk.0.attn_q.weight").columns).all()
