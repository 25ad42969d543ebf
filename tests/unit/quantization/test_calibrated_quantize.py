"""Quantizing with a calibration: what it is made from, where it is kept, and that the file is better for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import RunThriftbit
from thriftbit import (
    ThriftbitError,
    UsageError,
    inspect,
    make_plan,
    open_model,
    quantize,
    read_importance,
    write_importance,
)
from thriftbit.demo import DEMO_MODEL, open_demo_model
from thriftbit.measurement.comparison import compare
from thriftbit.measurement.material import gather
from thriftbit.measurement.texts import read_text
from thriftbit.network.configuration import configuration_of
from thriftbit.network.network import Network
from thriftbit.network.weights import Weights
from thriftbit.quantization.calibration_data import Calibration, held_back
from thriftbit.quantization.calibration_text import WINDOW_TOKENS, calibrate, calibration_windows
from thriftbit.quantization.engine.pool import pool_of
from thriftbit.quantization.importance import ImportanceMatrix


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THRIFTBIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        return calibrate(open_demo_model(), windows=12)


def test_the_same_bytes_say_more(calibration: Calibration, tmp_path: Path) -> None:
    model = open_demo_model()
    plan = make_plan(model, "Q4_0", importance=True)
    plain = quantize(model, plan, tmp_path / "plain.gguf")
    calibrated = quantize(model, plan, tmp_path / "calibrated.gguf", calibration=calibration)
    assert abs(calibrated.size_bytes - plain.size_bytes) < 200  # it says in its header that it is calibrated
    assert inspect(calibrated.path).types == inspect(plain.path).types
    assert len(calibrated.kept_plain) < len(calibration.names) / 2

    torch.set_num_threads(1)
    (text,) = gather(model, [read_text("prose")], [], 256, windows=4)
    passages = [passage for number in range(text.units) for passage in text.unit(number)]
    files = [open_model(result.path, allow_requantize=True) for result in (plain, calibrated)]
    network = Network(configuration_of(model), torch.device("cpu"))
    _, before, after = compare(network, [Weights(each) for each in (model, *files)], passages)
    lost = [np.mean([scores.divergence for scores in each]) for each in (before, after)]
    assert lost[1] < 0.75 * lost[0]  # 0.5 with a third of the usual text


def test_the_file_is_the_same_every_time(calibration: Calibration, tmp_path: Path) -> None:
    model = open_demo_model()
    plan = make_plan(model, "Q2_K", importance=True)
    first, again = (
        quantize(
            model, plan, tmp_path / f"{count}.gguf", calibration=calibration, threads=count, workers=count
        ).path.read_bytes()
        for count in (1, 2)
    )
    pool_of(2).close()
    assert first == again


def test_a_calibration_is_made_once_for_a_model_and_a_text(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    monkeypatch.setenv("THRIFTBIT_CACHE", str(tmp_path))
    model = open_model(tiny_llama)
    first = calibrate(model, windows=8)
    assert len(told) == 1 and "Calibrating on 4,096 tokens, about " in told[0]
    assert calibrate(model, windows=8) == first
    assert len(told) == 2 and told[1].startswith("Calibrated before")
    (tmp_path / "mine.txt").write_text("Nobody else has written this. " * 200)
    assert calibrate(model, tmp_path / "mine.txt", windows=8).folder != first.folder


def test_a_short_text_is_cut_so_that_some_can_be_held_back(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("A page of text is little, and it is still worth something. " * 60)
    windows = calibration_windows(open_demo_model(), tmp_path / "text.txt", 40)
    assert 8 <= len(windows) < 12 and 32 <= windows.shape[1] < WINDOW_TOKENS
    assert held_back(len(windows)).any()


def test_windows_are_spread_over_all_texts() -> None:
    model = open_demo_model()
    windows = calibration_windows(model, None, 8)
    assert windows.shape == (8, WINDOW_TOKENS) and windows.dtype == np.int64
    assert len(np.unique(windows, axis=0)) == 8


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "too short"), (b"One two three.", "too short"), (b"\xff\xfe\xfa", "not UTF-8")]
)
def test_text_that_cannot_be_calibrated_on(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(content)
    with pytest.raises(ThriftbitError, match=f"text.txt: .*{words}"):
        calibration_windows(open_demo_model(), tmp_path / "text.txt", 4)
    with pytest.raises(ThriftbitError, match="does not exist"):
        calibration_windows(open_demo_model(), tmp_path / "missing.txt", 4)


def test_half_a_page_gives_a_correct_file(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    monkeypatch.setenv("THRIFTBIT_CACHE", str(tmp_path))
    (tmp_path / "text.txt").write_text("Ten words are not much, but the file is right. " * 4)
    model = open_model(tiny_llama)
    calibration = calibrate(model, tmp_path / "text.txt")
    assert "too few to check a rounding on" in told[0]
    plan = make_plan(model, "Q4_0", importance=True)
    result = quantize(model, plan, tmp_path / "out.gguf", calibration=calibration)
    assert set(result.kept_plain) == calibration.names  # there is nothing to check on, so nothing is risked
    assert inspect(result.path).file_type == "Q4_0"


def test_what_does_not_go_together(calibration: Calibration, tmp_path: Path, run_thriftbit: RunThriftbit) -> None:
    model = open_demo_model()
    plan = make_plan(model, "Q4_0")
    importance = ImportanceMatrix(Path("any"), (), 0, {})
    with pytest.raises(UsageError, match="give one of them"):
        quantize(model, plan, tmp_path / "out.gguf", importance=importance, calibration=calibration)
    done = run_thriftbit("quantize", DEMO_MODEL, "--to", "Q4_0", "--effort", "calibrated", "--imatrix", "any")
    assert done.returncode == 2 and "give one of them" in done.stderr
    (tmp_path / "there.gguf").touch()
    done = run_thriftbit("quantize", DEMO_MODEL, "--to", "Q4_0", "--effort", "calibrated", "-o", "there.gguf")
    assert done.returncode == 1 and "exists already" in done.stderr and "calibrating" not in done.stderr


def test_what_was_found_goes_to_llama_cpp_and_back(calibration: Calibration, tmp_path: Path) -> None:
    model = open_demo_model()
    write_importance(calibration, tmp_path / "imatrix.gguf", text="mine")
    found = read_importance(tmp_path / "imatrix.gguf")
    assert found.datasets == ("mine",) and found.chunks == calibration.tokens // WINDOW_TOKENS
    assert found.check(model).missing == () and found.entries.keys() == calibration.names
    for tensor in model.tensors:
        if tensor.name in calibration.names:
            values = found.for_tensor(tensor)
            assert values is not None
            np.testing.assert_allclose(values[0], calibration.importance(tensor.name), rtol=1e-6)
    with pytest.raises(ThriftbitError, match="exists already"):
        write_importance(calibration, tmp_path / "imatrix.gguf")


def test_matrices_without_data_are_named(calibration: Calibration, tmp_path: Path) -> None:
    model = open_demo_model()
    some = sorted(calibration.names)[:3]
    poorer = replace(calibration, names=calibration.names - set(some), missing=tuple(some))
    result = quantize(model, make_plan(model, "Q4_0"), tmp_path / "out.gguf", calibration=poorer)
    assert {name: result.kept_plain.get(name) for name in some} == dict.fromkeys(
        some, "the calibration has no data on it"
    )
