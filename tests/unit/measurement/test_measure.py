"""What `measure` does beside computing: judging, keeping, refusing in time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import thriftbit
from thriftbit import Measurement, MeasureSettings, make_plan, measure, open_model, quantize
from thriftbit.cli import commands
from thriftbit.measurement.measure import CannotMeasureError, decide_loss
from thriftbit.measurement.measurement import CONFIDENCE_95, Subject
from thriftbit.measurement.store import read

ACCURACY = MeasureSettings(tasks=("prose",), parts=("accuracy",), context_tokens=32, budget_seconds=None, windows=12)


@pytest.fixture(scope="module")
def quantized(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = open_model(tiny_llama)
    return quantize(model, make_plan(model, "Q4_0"), tmp_path_factory.mktemp("quantized") / "tiny-Q4_0.gguf").path


def ratio(value: float, low: float | None, high: float | None, name: str = "a", domain: str = "all") -> Measurement:
    return Measurement(
        what="perplexity_ratio",
        value=value,
        low=low,
        high=high,
        interval=CONFIDENCE_95 if low else "",
        subject=Subject(name, "Q4_0", name, 1, 4.5),
        settings={"domain": domain},
    )


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(1.001, 1.009, "yes"), (1.02, 1.04, "no"), (1.005, 1.02, "cannot tell yet"), (None, None, "cannot tell yet")],
)
def test_a_loss_is_judged_by_its_interval(low: float | None, high: float | None, verdict: str) -> None:
    assert [found for _, found in decide_loss([ratio(1.005, low, high)], 0.01)] == [verdict]


def test_of_several_texts_all_together_decide_and_every_file_for_itself() -> None:
    rows = [ratio(1.5, 1.4, 1.6, domain="code"), ratio(1.0, 0.99, 1.005), ratio(1.1, 1.09, 1.2, name="b")]
    assert [(row.subject.name, found) for row, found in decide_loss(rows, 0.01)] == [("a", "yes"), ("b", "no")]


def test_rounds_of_before_survive_an_interrupt(tiny_llama: Path, quantized: Path) -> None:
    """Ctrl-C comes wherever it wants; here in the third round"""
    shares: list[float] = []

    def progress(what: str, share: float) -> None:
        shares.append(share)
        if share > 0.6:
            raise KeyboardInterrupt

    rows: list[Measurement] = []
    measured = measure([quantized], tiny_llama, ACCURACY, progress=progress)
    with pytest.raises(KeyboardInterrupt):
        while True:
            rows.append(next(measured))
    windows = {row.settings["windows"] for row in rows}
    assert {row.what for row in rows} >= {"perplexity", "kl_divergence_mean"} and windows == {4}


def test_the_command_line_keeps_what_came_before_an_interrupt(
    quantized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> Iterator[Measurement]:
        yield ratio(1.1, 1.0, 1.2)
        raise KeyboardInterrupt

    monkeypatch.setenv("THRIFTBIT_CACHE", str(tmp_path))
    monkeypatch.setattr(thriftbit, "measure", interrupted)
    with pytest.raises(click.Abort):
        CliRunner().invoke(commands, ["measure", str(quantized)], standalone_mode=False, catch_exceptions=False)
    assert read(tmp_path / "measurements.jsonl")[0] == [ratio(1.1, 1.0, 1.2)]


def test_without_torch_accuracy_says_what_to_install(
    quantized: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    with pytest.raises(CannotMeasureError, match=r'pip install "thriftbit\[torch\]"') as caught:
        next(measure([quantized], settings=ACCURACY))
    assert caught.value.exit_code == 4
    both = replace(ACCURACY, parts=("accuracy", "speed"))
    assert next(measure([quantized], settings=both)).what == "file_size"
    assert len(told) == 1 and told[0].startswith("Not measured: accuracy needs torch")


def test_everything_is_checked_before_torch_is_loaded(quantized: Path, thriftbit_environment: dict[str, str]) -> None:
    code = f"""
import sys, thriftbit
for tasks, context in ((["missing.txt"], 32), (["prose"], 100_000)):
    try:
        next(thriftbit.measure([{str(quantized)!r}], settings=thriftbit.MeasureSettings(tasks, context_tokens=context)))
    except thriftbit.ThriftbitError:
        continue
    raise SystemExit("not refused")
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-P", "-c", code], env=thriftbit_environment, check=True)
