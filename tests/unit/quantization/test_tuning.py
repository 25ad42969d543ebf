"""Tuned rounding: what it is worth on other text, that it goes on where it was interrupted, what a layer is made of."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from conftest import RunThriftbit
from thriftbit import inspect, make_plan, open_model, quantize
from thriftbit.demo import open_demo_model
from thriftbit.errors import ThriftbitError
from thriftbit.formats import format_named
from thriftbit.library.artefacts import ROUNDED, made_of
from thriftbit.measurement.comparison import compare
from thriftbit.measurement.material import gather
from thriftbit.measurement.texts import read_text
from thriftbit.network.configuration import configuration_of
from thriftbit.network.network import Network
from thriftbit.network.products import short_products
from thriftbit.network.stages import Stage, find_stages
from thriftbit.network.weights import Weights
from thriftbit.quantization import tuning, tuning_tasks
from thriftbit.quantization.calibration import calibrate_windows
from thriftbit.quantization.calibration_data import Calibration
from thriftbit.quantization.calibration_text import calibration_windows
from thriftbit.quantization.engine.pool import pool_of
from thriftbit.quantization.rounded import Rounded
from thriftbit.quantization.tuned import tune
from thriftbit.quantization.tuning import tune_in
from thriftbit.sources.model import Model

WINDOWS = np.random.default_rng(0).integers(0, 250, (16, 48))


@pytest.fixture(autouse=True)
def one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("THRIFTBIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> Model:
    return open_model(tiny_llama)


@pytest.fixture(scope="module")
def calibration(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    return calibrate_windows(model, WINDOWS, tmp_path_factory.mktemp("calibrated") / "calibration")


@pytest.mark.slow
def test_it_says_more_than_calibrated_in_the_same_bytes(tmp_path: Path) -> None:
    model = open_demo_model()
    calibration = calibrate_windows(model, calibration_windows(model, None, 24), tmp_path / "calibration")
    plan = make_plan(model, "Q4_0", importance=True)
    rounded = tune_in(model, plan, calibration, tmp_path / "tuned")
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

    def note(device: torch.device) -> AbstractContextManager[object]:
        asked.append(device)
        return short_products(device)

    monkeypatch.setattr(tuning_tasks, "short_products", note)
    tune_in(model, make_plan(model, preset), calibration, tmp_path / "tuned")
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
    tune_in(model, make_plan(model, "Q4_0"), calibration, tmp_path / "tuned")
    assert set(asked) == {name for name in calibration.names if "ffn_gate" not in name and "ffn_up" not in name}


def test_an_interrupted_run_goes_on_behind_what_is_finished(
    model: Model, calibration: Calibration, tmp_path: Path, told: list[str]
) -> None:
    plan = make_plan(model, "Q4_0")

    def interrupt(what: str, share: float) -> None:
        if share > 0.5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        tune(model, plan, calibration, progress=interrupt)
    again = tune(model, plan, calibration)
    told = told[-2:]
    assert told[0].startswith("Going on with ") and "Tuning 21 matrices, about " in told[1]
    assert not list(again.folder.glob("states-*"))
    straight = tune_in(model, plan, calibration, tmp_path / "straight")
    for name in calibration.names:
        np.testing.assert_array_equal(again.blocks(name), straight.blocks(name))
    again.discard()
    assert not again.folder.exists()


def test_what_is_finished_is_not_gone_through_again(
    model: Model, calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, passed = make_plan(model, "Q4_0"), list[int]()
    straight = tune_in(model, plan, calibration, tmp_path / "straight")
    blocks = straight.blocks("blk.1.ffn_up.weight")
    (straight.folder / "blk.1.ffn_up.weight.npz").unlink()
    call = Network.call
    monkeypatch.setattr(Network, "call", lambda self, index, *rest: passed.append(index) or call(self, index, *rest))
    again = tune_in(model, plan, calibration, tmp_path / "straight")
    np.testing.assert_array_equal(again.blocks("blk.1.ffn_up.weight"), blocks)
    assert set(passed) == {0, 1}  # and not the third layer
    passed.clear()
    tune_in(model, plan, calibration, tmp_path / "straight")
    assert passed == []


def test_in_one_command(tiny_llama: Path, tmp_path: Path, run_thriftbit: RunThriftbit) -> None:
    text, cache = tmp_path / "mine.txt", tmp_path / "cache"
    text.write_text("Somebody has to write what is read. " * 60)
    arguments = ("--to", "Q4_0", "--effort", "tuned", "--calibrate-on", text, "-o", "out.gguf")
    done = run_thriftbit("quantize", tiny_llama, *arguments, THRIFTBIT_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    assert "Calibrating on " in done.stderr and "Tuning 21 matrices, about " in done.stderr
    assert open_model(tmp_path / "out.gguf", allow_requantize=True).metadata["thriftbit.effort"] == "tuned"
    assert not [
        path for path in (cache / "tuning").iterdir() if path.is_dir()
    ]  # nothing waits for a file that is written
    again = run_thriftbit("quantize", tiny_llama, *arguments, THRIFTBIT_CACHE=str(cache))
    assert again.returncode == 1 and "exists already" in again.stderr and "Tuning" not in again.stderr


def test_the_file_holds_the_blocks_that_were_rounded(model: Model, calibration: Calibration, tmp_path: Path) -> None:
    plan = make_plan(model, "Q4_1")
    rounded = tune_in(model, plan, calibration, tmp_path / "tuned")
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
    rounded = tune_in(model, make_plan(model, "F16"), calibration, tmp_path / "tuned")
    assert all("leaves nothing to choose" in rounded.note(name) for name in calibration.names)


def test_a_token_that_is_not_finite_is_lost_and_no_more(model: Model, calibration: Calibration, tmp_path: Path) -> None:
    """One weight of the embedding is not a number: the windows with that token are lost from there on"""
    token = int(WINDOWS[0, 40])
    (embedding,) = (tensor for tensor in model.tensors if tensor.name == "token_embd.weight")

    def spoiled(start: int, stop: int) -> NDArray[np.float32]:
        rows = embedding.load(start, stop)
        if start <= token < stop:
            rows[token - start, 3] = np.nan
        return rows

    tensors = tuple(replace(t, read=spoiled) if t is embedding else t for t in model.tensors)
    bad = replace(model, tensors=tensors)
    found = calibrate_windows(bad, WINDOWS, tmp_path / "calibration")
    assert found.names == calibration.names
    lost = [int(np.flatnonzero(window == token)[0]) if token in window else 48 for window in WINDOWS]
    for name in ("blk.0.attn_q.weight", "blk.2.ffn_down.weight"):
        assert 0 < found.left_out[name] < 0.5 * calibration.tokens
        for window, first in enumerate(lost):
            assert (found.sizes(name)[window, first:] == 0).all()
        assert np.isfinite(found.curvature(name).columns).all() and np.isfinite(found.importance(name)).all()


def test_a_text_that_is_too_short_to_check_on_is_said_and_keeps_all_plain(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = calibrate_windows(model, WINDOWS[:4], tmp_path / "calibration")
    monkeypatch.setattr(Network, "call", lambda *_: pytest.fail("nothing has to be computed"))
    plan = make_plan(model, "Q4_0", importance=True)
    rounded = tune_in(model, plan, short, tmp_path / "tuned")
    assert {rounded.note(name) for name in short.names} == {tuning.TOO_SHORT}
    files = [
        quantize(model, plan, tmp_path / f"{name}.gguf", calibration=short, rounded=each)
        for name, each in (("calibrated", None), ("tuned", rounded))
    ]
    tensors = [open_model(file.path, allow_requantize=True).tensors for file in files]
    for first, second in zip(*tensors, strict=True):
        np.testing.assert_array_equal(first.load(), second.load())
    assert files[0].kept_plain == files[1].kept_plain


def test_the_same_bytes_for_two_workers(model: Model, calibration: Calibration, tmp_path: Path) -> None:
    plan = make_plan(model, "Q4_0")
    one, two = (tune_in(model, plan, calibration, tmp_path / str(n), workers=n) for n in (1, 2))
    pool_of(2).close()
    for name in calibration.names:
        np.testing.assert_array_equal(one.blocks(name), two.blocks(name))
        assert one.note(name) == two.note(name)


def test_what_was_rounded_for_something_else_is_refused(model: Model, calibration: Calibration, tmp_path: Path) -> None:
    """Rows of Q4_0 and Q4_K take equally many bytes"""
    plan = make_plan(model, "Q4_K_M")
    rounded = tune_in(model, plan, calibration, tmp_path / "tuned")
    other = replace(plan, formats={name: "Q4_0" if f == "Q4_K" else f for name, f in plan.formats.items()})
    with pytest.raises(ThriftbitError, match="was rounded in Q4_K, and the plan says Q4_0"):
        quantize(model, other, tmp_path / "out.gguf", calibration=calibration, rounded=rounded)
    changed = replace(model, tensors=tuple(replace(t, read=lambda a, b, t=t: 2 * t.load(a, b)) for t in model.tensors))
    for arguments in ({"calibration": calibration}, {"calibration": calibration, "rounded": rounded}):
        with pytest.raises(ThriftbitError, match="of another model"):
            quantize(changed, plan, tmp_path / "out.gguf", **arguments)
    assert not (tmp_path / "out.gguf").exists()
    with pytest.raises(ThriftbitError, match="of another model"):
        tune_in(changed, plan, calibration, tmp_path / "other")


def test_two_models_in_one_place_do_not_mix(tiny_llama: Path, model: Model, tmp_path: Path) -> None:
    """The folders of both calibrations have one name"""
    reversed_rows = replace(
        model,
        tensors=tuple(
            replace(t, read=lambda start, stop, t=t: t.load()[::-1][start:stop].copy()) if ".ffn_up" in t.name else t
            for t in model.tensors
        ),
    )
    plan = make_plan(model, "Q4_0")
    lost = []
    for number, each in enumerate((model, reversed_rows)):
        found = calibrate_windows(each, WINDOWS[:8], tmp_path / str(number) / "calibration")
        blocks = tune(each, plan, found).blocks("blk.2.ffn_up.weight")
        (tensor,) = (tensor for tensor in each.tensors if tensor.name == "blk.2.ffn_up.weight")
        error = format_named("Q4_0").decode(blocks) - tensor.load()
        lost.append(np.linalg.norm(error) / np.linalg.norm(tensor.load()))
    assert max(lost) < 0.2


def test_damaged_blocks_are_rounded_again(
    model: Model, calibration: Calibration, tmp_path: Path, told: list[str]
) -> None:
    plan = make_plan(model, "Q4_0")
    rounded = tune_in(model, plan, calibration, tmp_path / "tuned")
    name = "blk.2.ffn_up.weight"
    expected, path = rounded.blocks(name), rounded.folder / f"{name}.npz"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ThriftbitError, match=r"ffn_up\.weight\.npz: is damaged"):
        quantize(model, plan, tmp_path / "out.gguf", calibration=calibration, rounded=rounded)
    tune_in(model, plan, calibration, tmp_path / "tuned")
    np.testing.assert_array_equal(rounded.blocks(name), expected)
    assert any("is damaged; blk.2.ffn_up.weight is rounded again" in line for line in told)


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


def test_a_block_of_another_run_is_not_half_there(model: Model, tmp_path: Path) -> None:
    rounded = Rounded(tmp_path, made_of(ROUNDED, model))
    assert "blk.0.attn_q.weight" not in rounded
    rounded.keep("blk.0.attn_q.weight", np.zeros((2, 18), np.uint8), "why")
    assert "blk.0.attn_q.weight" in rounded and rounded.note("blk.0.attn_q.weight") == "why"
    assert [path.name for path in tmp_path.iterdir()] == ["blk.0.attn_q.weight.npz"]
