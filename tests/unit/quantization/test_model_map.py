"""The map of a real model: what it predicts is what is measured, and what was found out once stays found out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from thriftbit import open_model, quantize
from thriftbit.demo import open_demo_model
from thriftbit.measurement.comparison import compare
from thriftbit.measurement.material import gather
from thriftbit.measurement.texts import DOMAINS, read_text
from thriftbit.network.configuration import configuration_of
from thriftbit.network.network import Network
from thriftbit.network.weights import Weights
from thriftbit.quantization import map_making, model_map
from thriftbit.quantization.allocation import Budget, find_plan
from thriftbit.quantization.calibration_text import calibrate
from thriftbit.quantization.gguf_file import file_layout
from thriftbit.quantization.model_map import map_importance, map_model, read_map
from thriftbit.quantization.plan import Plan, make_plan
from thriftbit.quantization.sensitivity import CALIBRATED, PLAIN, Sensitivities, offered_formats
from thriftbit.quantization.sensitivity_probe import with_formats
from thriftbit.report.map_page import render_map, write_map
from thriftbit.sources.model import Model

WINDOWS = 16
OF_EIGHT_WINDOWS = 1.15  # what the truth itself is uncertain by, on so little text


@pytest.fixture(scope="module")
def model() -> Model:
    return open_demo_model()


@pytest.fixture(scope="module")
def known(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Sensitivities:
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THRIFTBIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        made = map_model(model, windows=WINDOWS)
        assert read_map(model) == made and read_map(model, PLAIN) is None
        return made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Little text and a cache of its own, where numbers do not matter"""
    monkeypatch.setenv("THRIFTBIT_CACHE", str(tmp_path))
    monkeypatch.setattr(model_map, "MEASURED_WINDOWS", 2)


def measured(model: Model, weights: list[Weights]) -> list[float]:
    """Return mean divergences on text that nothing was calibrated on."""
    material = gather(model, [read_text(domain) for domain in DOMAINS], [], 512, windows=2)
    passages = [passage for text in material for number in range(text.units) for passage in text.unit(number)]
    network = Network(configuration_of(model), torch.device("cpu"))
    scores = compare(network, [Weights(model), *weights], passages)
    return [float(np.mean([each.divergence.mean() for each in own])) for own in scores[1:]]


@pytest.mark.slow
def test_every_tensor_has_a_loss_in_every_format(model: Model, known: Sensitivities) -> None:
    for tensor in model.tensors:
        offered = {format.name for format in offered_formats(tensor)}
        assert {*known.losses.get(tensor.name, {})} == offered
        if offered:
            losses = known.losses[tensor.name]
            assert losses["F16"] < losses["Q8_0"] < losses["Q6_K"] < losses["Q4_K"] < losses["Q2_K"]
    matrices = {tensor.name for tensor in model.tensors if tensor.name in known.losses and "blk." in tensor.name}
    assert {*known.savings} == matrices
    assert 0.1 < np.mean([*known.savings.values()]) < 0.9


@pytest.mark.slow
def test_predictions_are_measured(
    model: Model, known: Sensitivities, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THRIFTBIT_CACHE", str(tmp_path))
    calibration = calibrate(model, windows=WINDOWS)
    presets = [make_plan(model, name, importance=True) for name in ("Q6_K", "Q4_0", "Q3_K_S")]
    size_bytes = file_layout(model, presets[1]).file_size_bytes
    best = find_plan(model, known, Budget(size_bytes=size_bytes)).plan
    calibrated = find_plan(model, known, Budget(size_bytes=size_bytes), CALIBRATED).plan
    plans = [*presets, best]

    def free(plan: Plan) -> dict[str, str]:
        return {name: plan.formats[name] for name in known.losses}

    weights = [with_formats(model, free(plan), calibration) for plan in plans]
    result = quantize(model, calibrated, tmp_path / "calibrated.gguf", calibration=calibration)
    weights.append(Weights(open_model(result.path, allow_requantize=True)))
    found = measured(model, weights)
    predicted = [known.predict(plan.formats, PLAIN) for plan in plans]
    predicted.append(known.predict(calibrated.formats, CALIBRATED))
    for loss, truth in zip(predicted, found, strict=True):
        assert loss.low / OF_EIGHT_WINDOWS < truth < loss.high * OF_EIGHT_WINDOWS
    assert found[3] < 0.6 * found[1]  # the best plan, in the bytes of Q4_0
    assert found[4] < 0.6 * found[3]  # the same, calibrated


def test_it_goes_on_where_it_was(
    quick: None, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(tiny_llama)
    computed: list[str] = []
    losses_of = map_making.losses_task

    def counted(task):  # type: ignore[no-untyped-def]
        if len(computed) == 5 and "interrupted" not in computed:
            computed.append("interrupted")
            raise KeyboardInterrupt
        computed.append(task.tensor.name)
        return losses_of(task)

    monkeypatch.setattr(map_making, "losses_task", counted)
    with pytest.raises(KeyboardInterrupt):
        map_model(model, PLAIN, windows=4)
    made = map_model(model, PLAIN, windows=4)
    matrices = [name for name in computed if name != "interrupted"]
    assert len(matrices) == len({*matrices}) == 21
    assert made.savings == {} and {anchor.effort for anchor in made.anchors} == {PLAIN}

    shares: list[float] = []
    more = map_model(model, "tuned", windows=4, progress=lambda what, share: shares.append(share))
    assert len(computed) == 22 and len(more.savings) == 21  # what plain files needed is there
    assert shares == sorted(shares) and all(0 <= share <= 1 for share in shares)
    assert read_map(model, CALIBRATED) == more
    assert map_model(model, PLAIN, windows=4).losses == made.losses


def test_output_and_embedding_apart(quick: None, tiny_llama: Path) -> None:
    model = open_model(tiny_llama)
    known = map_model(model, PLAIN, windows=4)
    for name in ("token_embd.weight", "output.weight"):
        assert known.losses[name]["Q4_K"] > known.losses[name]["Q8_0"] > 0
    assert map_importance(model).check(model).missing == ()


def test_another_text_makes_another_map(quick: None, tiny_llama: Path, tmp_path: Path) -> None:
    model = open_model(tiny_llama)
    text = tmp_path / "mine.txt"
    text.write_text("Ten words are not much, but the file is right. " * 60)
    known = map_model(model, PLAIN, text, windows=4)
    assert read_map(model, PLAIN, text) == known and read_map(model, PLAIN) is None


def test_tensors_without_curvature_are_measured_together(
    quick: None, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(tiny_llama)
    whole = map_model(model, PLAIN, windows=4)
    calibration = calibrate(model, windows=4)
    names = frozenset(name for name in calibration.names if "ffn_up" not in name)

    def without(*arguments, **options):  # type: ignore[no-untyped-def]
        return replace(calibration, names=names)

    monkeypatch.setattr(model_map, "calibrate", without)
    monkeypatch.setattr(model_map, "METHOD", 0)  # so that it is made anew
    known = map_model(model, PLAIN, windows=4)
    names = frozenset(f"blk.{layer}.ffn_up.weight" for layer in range(3))
    together, apart = (sum(each.losses[name]["Q4_K"] for name in names) for each in (known, whole))
    assert apart / 2 < together < 2 * apart
    assert all(known.losses[name]["Q8_0"] < 0.05 * known.losses[name]["Q4_K"] for name in names)


@pytest.mark.slow
def test_the_page(model: Model, known: Sensitivities, tmp_path: Path) -> None:
    page = render_map(model, known, CALIBRATED)
    assert "What it loses at every size" in page and "<script" not in page
    for preset in ("Q4_K_M", "Q3_K_S", "Q8_0"):
        assert preset in page
    path = write_map(model, known, CALIBRATED, tmp_path / "map.html")
    assert path.read_text() == page
