"""llama.cpp in its own process: it answers, refuses and dies without taking us along."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from thriftbit.errors import ThriftbitError
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.quantize import quantize
from thriftbit.runtime import Engine
from thriftbit.sources.open_model import open_model


@pytest.fixture(scope="module")
def gguf(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = open_model(tiny_llama)
    return quantize(model, make_plan(model, "F16"), tmp_path_factory.mktemp("engine") / "tiny.gguf").path


def test_the_likeliest_continuation_is_repeatable(gguf: Path) -> None:
    with Engine(gguf, context_tokens=64, threads=1) as engine:
        first, second = (engine.generate("Hello", max_tokens=6, temperature=0) for _ in range(2))
    assert first.text == second.text
    assert first.generated_tokens == 6 and first.generation_seconds > 0 and first.tokens_per_second > 0


def test_a_seed_repeats_what_chance_chose(gguf: Path) -> None:
    with Engine(gguf, context_tokens=64, threads=1) as engine:
        texts = [engine.generate("Hello", max_tokens=12, temperature=5.0, seed=seed).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_too_long_a_prompt_is_an_error_after_which_it_goes_on(gguf: Path) -> None:
    with Engine(gguf, context_tokens=64, threads=1) as engine:
        with pytest.raises(ThriftbitError, match=r"tiny\.gguf: llama\.cpp could not run it: .*context size"):
            engine.generate("x" * 5000)
        assert engine.generate("Hello", max_tokens=1).generated_tokens == 1


def test_a_damaged_file_is_refused_with_llama_cpps_reason(gguf: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(gguf.read_bytes()[:-100_000])
    with (
        pytest.raises(ThriftbitError, match=r"damaged\.gguf: .*corrupted or incomplete"),
        Engine(damaged, context_tokens=64, threads=1),
    ):
        pass


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ThriftbitError, match=r"none\.gguf: no such file"):
        Engine(tmp_path / "none.gguf")


def test_an_engine_that_dies_is_an_error(gguf: Path) -> None:
    with Engine(gguf, context_tokens=64, threads=1) as engine:
        os.kill(engine._process.pid, signal.SIGKILL)
        with pytest.raises(ThriftbitError, match="it ended with signal 9"):
            engine.generate("Hello")


def test_nothing_of_llama_cpps_reaches_our_outputs(gguf: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Engine(gguf, context_tokens=64, threads=1) as engine:
        engine.generate("Hello", max_tokens=1)
    assert capfd.readouterr() == ("", "")
