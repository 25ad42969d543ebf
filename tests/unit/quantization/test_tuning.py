"""Tuned rounding: what it is worth on other text, that it goes on where it was interrupted, what a layer is made of."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import RunThriftbit
from thriftbit import inspect, make_plan, open_model, quantize
from thriftbit.demo import open_demo_model
from thriftbit.formats import format_named
from thriftbit.measurement.comparison import compare
from thriftbit.measurement.material import gather
from thriftbit.measurement.texts import read_text
from thriftbit.network.configuration import configuration_of
from thriftbit.network.network import Network
from thriftbit.network.stages import Stage, find_stages
from thriftbit.network.weights import Weights
from thriftbit.quantization import tuning
from thriftbit.quantization.calibration import calibrate
from thriftbit.quantization.calibration_data import Calibration
from thriftbit.quantization.calibration_text import calibration_windows
from thriftbit.quantization.rounded import Rounded
from thriftbit.quantization.tuned import tuned
from thriftbit.quantization.tuning import tune
from thriftbit.sources.model import Model

WINDOWS = np.random.default_rng(0).integers(0, 250, (16, 48))


@pytest.fixture(autouse=True)
def one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("THRIFTBIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model(tiny_llama: Path) -> Model:
    return open_model(tiny_llama)


@pytest.fixture
def calibration(model: Model, tmp_path: Path) -> Calibration:
    return calibrate(model, WINDOWS, tmp_path / "calibration")


@pytest.mark.slow
def test_it_says_more_than_calibrated_in_the_same_bytes(tmp_path: Path) -> None:
    model = open_demo_model()
    calibration = calibrate(model, calibration_windows(model, None, 24), tmp_path / "calibration")
    plan = make_plan(model, "Q4_0", importance=True)
    rounded = tune(model, plan, calibration, tmp_path / "tuned")
    results = [
        quantize(model, plan, tmp_path / "calibrated.gguf", calibration=calibration),
        quantize(model, plan, tmp_path / "tuned.gguf", calibration=calibration, rounded=rounded),
    ]
    files = [open_model(result.path, allow_requantize=True) for result in results]
    assert inspect(results[0].path).types == inspect(results[1].path).types
    assert [file.metadata["thriftbit.effort"] for file in files] == ["calibrated", "tuned"]

    (text,) = gather(model, [read_text("prose")], [], 256, windows=6)
    passages = [passage for number in range(text.units) for passage in text.unit(number)]
    network = Network(configuration_of(model), torch.device("cpu"))
    _, before, after = compare(network, [Weights(each) for each in (model, *files)], passages)
    lost = [np.mean([scores.divergence for scores in each]) for each in (before, after)]
    assert lost[1] < 0.95 * lost[0]


@pytest.mark.parametrize(("preset", "short"), [("Q4_0", True), ("Q8_0", False)])
def test_a_fine_plan_is_tuned_in_float32(
    preset: str, short: bool, model: Model, calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[torch.device]()

    def note(device: torch.device) -> nullcontext[None]:
        asked.append(device)
        return nullcontext()

    monkeypatch.setattr(tuning, "short_products", note)
    tune(model, make_plan(model, preset), calibration, tmp_path / "tuned")
    assert bool(asked) == short


@pytest.mark.parametrize("norm_behind", [False, True])
def test_gradients_count_where_nothing_makes_up_for_errors(
    norm_behind: bool, model: Model, calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if norm_behind:  # as in Gemma, where no matrix writes into the residual stream as it is

        def none_writing(*arguments: Any) -> list[Stage]:
            return [Stage(stage.names, frozenset()) for stage in find_stages(*arguments)]

        monkeypatch.setattr(tuning, "find_stages", none_writing)
    asked, rows = list[str](), Calibration.rows
    monkeypatch.setattr(Calibration, "rows", lambda self, name: asked.append(name) or rows(self, name))
    tune(model, make_plan(model, "Q4_0"), calibration, tmp_path / "tuned")
    assert set(asked) == {name for name in calibration.names if "ffn_gate" not in name and "ffn_up" not in name}


def test_an_interrupted_run_goes_on_behind_what_is_finished(
    model: Model, calibration: Calibration, tmp_path: Path, told: list[str]
) -> None:
    plan = make_plan(model, "Q4_0")

    def interrupt(what: str, share: float) -> None:
        if share > 0.5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        tuned(model, plan, calibration, progress=interrupt)
    again = tuned(model, plan, calibration)
    told = told[-2:]
    assert told[0].startswith("Going on with ") and "Tuning 21 matrices, about " in told[1]
    assert not list(again.folder.glob("states-*"))
    straight = tune(model, plan, calibration, tmp_path / "straight")
    for name in calibration.names:
        np.testing.assert_array_equal(again.blocks(name), straight.blocks(name))
    again.discard()
    assert not again.folder.exists()


def test_what_is_finished_is_not_gone_through_again(
    model: Model, calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, passed = make_plan(model, "Q4_0"), list[int]()
    straight = tune(model, plan, calibration, tmp_path / "straight")
    blocks = straight.blocks("blk.1.ffn_up.weight")
    (straight.folder / "blk.1.ffn_up.weight.npz").unlink()
    call = Network.call
    monkeypatch.setattr(Network, "call", lambda self, index, *rest: passed.append(index) or call(self, index, *rest))
    again = tune(model, plan, calibration, tmp_path / "straight")
    np.testing.assert_array_equal(again.blocks("blk.1.ffn_up.weight"), blocks)
    assert set(passed) == {0, 1}  # and not the third layer
    passed.clear()
    tune(model, plan, calibration, tmp_path / "straight")
    assert passed == []


def test_in_one_command(tiny_llama: Path, tmp_path: Path, run_thriftbit: RunThriftbit) -> None:
    text, cache = tmp_path / "mine.txt", tmp_path / "cache"
    text.write_text("Somebody has to write what is read. " * 60)
    arguments = ("--to", "Q4_0", "--effort", "tuned", "--calibrate-on", text, "-o", "out.gguf")
    done = run_thriftbit("quantize", tiny_llama, *arguments, THRIFTBIT_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    assert "Calibrating on " in done.stderr and "Tuning 21 matrices, about " in done.stderr
    assert open_model(tmp_path / "out.gguf", allow_requantize=True).metadata["thriftbit.effort"] == "tuned"
    assert not list((cache / "tuning").iterdir())  # nothing waits for a file that is written
    again = run_thriftbit("quantize", tiny_llama, *arguments, THRIFTBIT_CACHE=str(cache))
    assert again.returncode == 1 and "exists already" in again.stderr and "Tuning" not in again.stderr


def test_the_file_holds_the_blocks_that_were_rounded(model: Model, calibration: Calibration, tmp_path: Path) -> None:
    plan = make_plan(model, "Q4_1")
    rounded = tune(model, plan, calibration, tmp_path / "tuned")
    result = quantize(model, plan, tmp_path / "out.gguf", calibration=calibration, rounded=rounded)
    written = {tensor.name: tensor for tensor in open_model(result.path, allow_requantize=True).tensors}
    for name in calibration.names:
        format = format_named(plan.formats[name])
        np.testing.assert_array_equal(written[name].load(), format.decode(rounded.blocks(name)))
    notes = {name: rounded.note(name) for name in calibration.names if rounded.note(name)}
    assert result.kept_plain == notes


def test_formats_without_a_choice_are_kept_plain_and_said_so(
    model: Model, calibration: Calibration, tmp_path: Path
) -> None:
    rounded = tune(model, make_plan(model, "F16"), calibration, tmp_path / "tuned")
    assert all("leaves nothing to choose" in rounded.note(name) for name in calibration.names)


def test_activations_that_are_not_finite_end_in_the_plain_encoding(
    model: Model, calibration: Calibration, tmp_path: Path
) -> None:
    for name in calibration.names:
        path = calibration.folder / f"{name}.npz"
        with np.load(path) as file:
            parts = {part: file[part] for part in file.files}
        np.savez(path, **parts | {"sizes": parts["sizes"] * np.float32("nan")})
    plan = make_plan(model, "Q4_0")
    rounded = tune(model, plan, calibration, tmp_path / "tuned")
    assert all("not finite" in rounded.note(name) for name in calibration.names)
    assert quantize(model, plan, tmp_path / "out.gguf", calibration=calibration, rounded=rounded).path.exists()


def test_what_a_layer_is_made_of(model: Model) -> None:
    weights, network = Weights(model), Network(configuration_of(model), torch.device("cpu"))
    with torch.no_grad(), network.layer(0, weights) as layer:
        hidden = network.embed(weights, torch.from_numpy(WINDOWS[:1]))
        names = [name for name, module in layer.named_modules() if isinstance(module, torch.nn.Linear)]
        stages = find_stages(network, 0, layer, hidden, names)
    assert stages == [
        Stage(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), frozenset()),
        Stage(("self_attn.o_proj",), frozenset({"self_attn.o_proj"})),
        Stage(("mlp.gate_proj", "mlp.up_proj"), frozenset()),
        Stage(("mlp.down_proj",), frozenset({"mlp.down_proj"})),
    ]


def test_a_block_of_another_run_is_not_half_there(tmp_path: Path) -> None:
    rounded = Rounded(tmp_path)
    assert "blk.0.attn_q.weight" not in rounded
    rounded.keep("blk.0.attn_q.weight", np.zeros((2, 18), np.uint8), "why")
    assert "blk.0.attn_q.weight" in rounded and rounded.note("blk.0.attn_q.weight") == "why"
    assert [path.name for path in tmp_path.iterdir()] == ["blk.0.attn_q.weight.npz"]
