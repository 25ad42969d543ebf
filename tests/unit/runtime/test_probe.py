"""Measuring a machine: the models that are timed, and what is made of their timings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import RunThriftbit
from thriftbit.containers.ggml_types import format_for, format_of
from thriftbit.containers.gguf_reader import read_gguf
from thriftbit.errors import ThriftbitError
from thriftbit.formats import FORMATS
from thriftbit.machine.bandwidth import beyond_caches_bytes
from thriftbit.machine.facts import BUILT_IN, known
from thriftbit.machine.profile import Profile, StepCost, load_profile
from thriftbit.machine.rates import busiest_tokens
from thriftbit.runtime.engine import Engine
from thriftbit.runtime.examine import examine
from thriftbit.runtime.probe import measure_machine, thread_counts
from thriftbit.runtime.probe_model import NARROW, PROBED_FORMATS, WIDE, layers_for, write_probe_model
from thriftbit.runtime.probe_timing import (
    PROMPT_TOKENS,
    SEEN_TOKENS,
    Timings,
    attention_seconds,
    format_rate,
    step_cost,
    time_looking_back,
)


@pytest.mark.parametrize("name", PROBED_FORMATS)
def test_a_probe_model_holds_what_it_says(tmp_path: Path, name: str) -> None:
    model = write_probe_model(tmp_path / "m.gguf", name, 1, NARROW)
    file = read_gguf(model.path)
    read = [tensor for tensor in file.tensors if len(tensor.shape) == 2 and tensor.name != "token_embd.weight"]
    assert {tensor.ggml_type.name for tensor in read} == {name}
    stored = sum(tensor.shape[0] * format_for(tensor.ggml_type).row_bytes(tensor.shape[1]) for tensor in read)
    assert model.decode_bytes == stored
    layers = sum(int(np.prod(tensor.shape)) for tensor in read if tensor.name.startswith("blk."))
    assert model.prefill_weights == layers == NARROW.layer_weights
    gate = next(tensor for tensor in file.tensors if tensor.name == "blk.0.ffn_gate.weight")
    weights = format_for(gate.ggml_type).decode(file.read(gate, 0, gate.shape[0]))
    assert np.isfinite(weights).all() and weights.std() > 1e-4


def test_every_format_that_is_written_is_timed() -> None:
    assert set(FORMATS) <= set(PROBED_FORMATS)


def test_layers_reach_the_size() -> None:
    for name in ("Q4_K", "F32", "IQ1_S"):
        layers = layers_for(name, 100 << 20)
        format_bytes = WIDE.layer_weights * (FORMATS[name].bits_per_weight if name in FORMATS else 1.5625) / 8
        assert layers * format_bytes >= 100 << 20 > (layers - 1) * format_bytes
    assert layers_for("F32", 0) == 1


def test_a_very_large_cache_asks_for_no_more_layers_than_llama_cpp_takes() -> None:
    size_bytes = beyond_caches_bytes(480 << 20, 64 << 30)
    for name in PROBED_FORMATS:
        for shape in (WIDE, NARROW):
            layers = layers_for(name, size_bytes, shape)
            assert layers <= 512
            stored = layers * shape.layer_weights * format_of(name).bits_per_weight / 8
            assert stored >= size_bytes or layers == 512


def test_llama_cpp_runs_a_probe_model(tmp_path: Path) -> None:
    model = write_probe_model(tmp_path / "m.gguf", "Q4_K", 2, NARROW)
    with Engine(model.path, context_tokens=128, threads=1) as engine:
        answer = engine.generate([1, 2, 3], max_tokens=5, temperature=0, ignore_end=True)
    assert answer.generated_tokens == 5 and answer.tokens_per_second > 0


def test_looking_back_at_a_long_text_takes_time(tmp_path: Path) -> None:
    model = write_probe_model(tmp_path / "m.gguf", "Q4_0", 1, NARROW)
    assert 1e-6 < time_looking_back(model, 1) < 1.0


def test_the_cost_of_a_layer_is_what_is_left(tmp_path: Path) -> None:
    """Timings made of a known rate and costs give those costs back"""
    rate, layer_seconds, token_seconds = 20e9, 7e-5, 3e-4
    models = [
        write_probe_model(tmp_path / f"{index}.gguf", "Q4_0", layers, shape)
        for index, (layers, shape) in enumerate(((1, WIDE), (16, NARROW), (1, NARROW)))
    ]
    seconds = [[model.decode_bytes / rate + model.layers * layer_seconds + token_seconds] for model in models]
    cost = step_cost(3, list(zip(models, seconds, strict=True)))
    assert cost is not None and cost.threads == 3
    assert cost.layer_seconds == pytest.approx(layer_seconds)
    assert cost.token_seconds == pytest.approx(token_seconds)
    disturbed = [[10 * seconds[0][0]], *seconds[1:]]
    assert step_cost(3, list(zip(models, disturbed, strict=True))) is None

    repeated = [[each, 1.5 * each, 2.5 * each] for (each,) in seconds]
    restless = step_cost(3, list(zip(models, repeated, strict=True)))
    assert restless is not None and restless.layer_seconds == pytest.approx(1.5 * layer_seconds)

    shortly, at_length = (busiest_tokens(tokens, 3) for tokens in SEEN_TOKENS)
    back = attention_seconds(cost, models[2], NARROW, 1e-10 * NARROW.width * (at_length - shortly))
    assert back.attention_seconds == pytest.approx(1e-10)
    assert attention_seconds(cost, models[2], NARROW, -1.0) == cost == attention_seconds(cost, models[2], NARROW, None)

    timings = Timings([*seconds[0], *seconds[0]], [0.5, 0.5], "CPU")
    measured = format_rate(models[0], 3, timings, cost)
    assert measured.decode_bytes_per_second.median == pytest.approx(rate)
    assert measured.prefill_weights_per_second.median == pytest.approx(WIDE.layer_weights * PROMPT_TOKENS / 0.5)
    overcharged = format_rate(models[0], 3, timings, StepCost(3, 1.0, 1.0))
    assert overcharged.decode_bytes_per_second.median == pytest.approx(2 * models[0].decode_bytes / seconds[0][0])


def test_numbers_of_threads() -> None:
    assert thread_counts(1, 1) == [1]
    assert thread_counts(12, 6) == [1, 2, 4, 6, 8, 12]
    assert thread_counts(2, 16) == [1, 2]


def test_the_engine_in_the_box_says_what_it_can() -> None:
    facts = examine()
    (engine,) = (each for each in facts.engines if each.name == BUILT_IN)
    assert engine.version.value and engine.version.value.startswith("xllamacpp ")
    (processor, *_) = engine.details.value or ("",)
    assert processor.startswith("CPU: ")
    assert ("AVX2" in processor) <= ("AVX2" in (facts.processor.instruction_sets.value or ()))


def test_doctor_measures_keeps_and_shows(run_thriftbit: RunThriftbit, tmp_path: Path) -> None:
    cache = {"THRIFTBIT_CACHE": str(tmp_path / "cache"), "COLUMNS": "80"}
    before = run_thriftbit("doctor", **cache)
    assert before.returncode == 0
    assert "thriftbit doctor --measure" in before.stdout and "Measured here" not in before.stdout

    measuring = run_thriftbit("doctor", "--measure", "--time", "8s", "--json", **cache)
    assert measuring.returncode == 0, measuring.stderr
    profile = Profile.from_json(measuring.stdout)
    assert profile.best_threads is not None and profile.measured_at is not None
    assert "Q4_K" in {rate.format for rate in profile.rates if rate.threads == profile.best_threads}
    assert profile.bandwidth and (profile.step_costs or "cost of a layer" in measuring.stderr)
    # nothing reads weights faster than memory is read: quartiles, caches and a busy neighbour allow for some
    fastest = max(each.bytes_per_second.high for each in profile.bandwidth)
    assert all(1e7 < rate.decode_bytes_per_second.median < 3 * fastest for rate in profile.rates)
    files = [path.relative_to(tmp_path / "cache").as_posix() for path in (tmp_path / "cache").rglob("*")]
    assert sorted(files) == ["machine", "machine/profile.json"]

    after = run_thriftbit("doctor", **cache)
    assert "Measured here on" in after.stdout and "7 billion weights" in after.stdout
    assert max(map(len, after.stdout.splitlines())) <= 80 and len(after.stdout.splitlines()) <= 40
    document = json.loads(run_thriftbit("doctor", "--json", **cache).stdout)
    assert document["rates"] == json.loads(measuring.stdout)["rates"]
    (tmp_path / "saved.json").write_text(measuring.stdout)
    assert load_profile(tmp_path / "saved.json") == profile


@pytest.mark.skipif(sys.platform == "win32", reason="signals are different there")
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_leaves_nothing(
    tmp_path: Path, thriftbit_environment: dict[str, str], number: signal.Signals, exit_code: int
) -> None:
    cache = tmp_path / "cache"
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "thriftbit", "doctor", "--measure"],
        env=thriftbit_environment | {"THRIFTBIT_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not list(cache.rglob("threads.gguf")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1.0)  # until llama.cpp runs
    os.kill(process.pid, number)
    assert process.wait(30) == exit_code
    assert list(cache.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        for _ in range(50):  # its llama.cpp went with it
            os.killpg(process.pid, 0)
            time.sleep(0.1)


def test_a_disk_that_is_too_full_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THRIFTBIT_CACHE", str(tmp_path))
    facts = examine()
    full = replace(facts, disk=replace(facts.disk, free_bytes=known(1000, "df")))
    with pytest.raises(ThriftbitError, match=r"1\.00 kB are free"):
        measure_machine(full)
    assert list(tmp_path.iterdir()) == []
