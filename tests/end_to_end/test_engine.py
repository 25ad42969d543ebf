"""llama.cpp in its own process: it answers, refuses and dies without taking us along."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from conftest import RunThriftbit
from thriftbit.demo import open_demo_model
from thriftbit.errors import ThriftbitError
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.quantize import quantize
from thriftbit.runtime import Engine, Tokenizer
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
        with pytest.raises(
            ThriftbitError, match=r"tiny\.gguf: .*it ended with signal 9 \(killed, perhaps for want of memory\)"
        ):
            engine.generate("Hello")


def test_nothing_of_llama_cpps_reaches_our_outputs(gguf: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Engine(gguf, context_tokens=64, threads=1) as engine:
        engine.generate("Hello", max_tokens=1)
    assert capfd.readouterr() == ("", "")


def test_token_ids_for_a_prompt_are_read_anew_or_remembered_and_the_end_is_ignored(gguf: Path) -> None:
    prompt = list(range(40))
    with Engine(gguf, context_tokens=64, threads=1) as engine:
        first = engine.generate(prompt, max_tokens=1, temperature=0, ignore_end=True, read_anew=True)
        again = engine.generate(prompt, max_tokens=1, temperature=0, ignore_end=True, read_anew=True)
        assert first.prompt_tokens == again.prompt_tokens == len(prompt)
        assert 0 < first.prompt_seconds <= first.seconds and first.prompt_tokens_per_second > 0
        remembered = engine.generate(prompt, max_tokens=20, temperature=0, ignore_end=True)
        assert remembered.prompt_tokens == 1 and remembered.generated_tokens == 20


def test_the_system_accounts_for_the_engines_memory_alone(gguf: Path) -> None:
    ballast = bytearray(b"x") * (300 << 20)  # what we hold is not the engine's
    with Engine(gguf, context_tokens=64, threads=1) as engine:
        memory = engine.memory()
        now_bytes = psutil.Process(engine.process_id).memory_info().rss
    assert 0 < memory.before_loading_bytes <= memory.peak_bytes < len(ballast)
    assert memory.peak_bytes >= 0.9 * now_bytes


def test_what_was_loaded_and_where(gguf: Path) -> None:
    with Engine(gguf, context_tokens=64, threads=1) as engine:
        assert engine.load_seconds > 0 and engine.device


def test_the_engine_listens_to_this_computer_alone(gguf: Path) -> None:
    with Engine(gguf, context_tokens=64, threads=1) as engine:
        addresses = [c.laddr.ip for c in psutil.Process(engine.process_id).net_connections() if c.laddr]
    assert set(addresses) <= {"127.0.0.1", "::1"}


def test_the_tokenizer_alone_says_what_the_whole_model_says(tmp_path: Path) -> None:
    model = open_demo_model()
    path = quantize(model, make_plan(model, "Q4_K_M"), tmp_path / "demo.gguf").path
    texts = ["The city was founded in 1871.", "", " naïve\n\n\tdef f(x): return x**2 ", "<|endoftext|>", "日本語"]
    with Engine(path, context_tokens=64, threads=1) as engine, Tokenizer(model.metadata, model.source) as tokenizer:
        for special in (False, True):
            ids = tokenizer.tokenize(texts, add_special=special, parse_special=special)
            assert ids == engine.tokenize(texts, add_special=special, parse_special=special)
            assert (ids[3] == [0]) is special and ids[1] == [] and len(ids[0]) > 5


def test_a_model_without_a_tokenizer_is_named() -> None:
    with pytest.raises(ThriftbitError, match=r"^my-model: has no tokenizer"):
        Tokenizer({"general.name": "x"}, "my-model")


def test_a_tokenizer_that_llama_cpp_refuses_is_named() -> None:
    metadata = open_demo_model().metadata | {"tokenizer.ggml.pre": "no-such-splitting"}
    with pytest.raises(ThriftbitError, match=r"^my-model: .*pre-tokenizer"), Tokenizer(metadata, "my-model"):
        pass


def test_an_instructed_model_is_asked_by_its_own_template(gguf: Path, tmp_path: Path) -> None:
    model = open_demo_model()
    told = "{% for message in messages %}USER: {{ message.content }} {{ enable_thinking }}{% endfor %}"
    path = tmp_path / "chat.gguf"
    instructed = replace(model, metadata={**model.metadata, "tokenizer.chat_template": told})
    quantize(instructed, make_plan(instructed, "Q8_0"), path)
    with Engine(path, context_tokens=256, threads=1) as engine:
        answer = engine.chat("Where is the city?", max_tokens=8, temperature=0)
        (ids,) = engine.tokenize(["USER: Where is the city? False"], add_special=True, parse_special=True)
        assert answer.prompt_tokens == len(ids) and answer.generated_tokens == 8
        plain = engine.generate("USER: Where is the city? False", max_tokens=8, temperature=0)
        assert plain.text.strip() == answer.text.strip()


def test_why_llama_cpp_is_not_to_be_had_reaches_the_user(
    gguf: Path, tmp_path: Path, run_thriftbit: RunThriftbit, thriftbit_environment: dict[str, str]
) -> None:
    """A library that is missing, for one: Python says so before llama.cpp could log anything."""
    (tmp_path / "broken" / "xllamacpp").mkdir(parents=True)
    words = "libgomp.so.1: cannot open shared object file: No such file or directory"
    (tmp_path / "broken" / "xllamacpp" / "__init__.py").write_text(f"raise ImportError({words!r})")
    broken = {"PYTHONPATH": f"{tmp_path / 'broken'}{os.pathsep}{thriftbit_environment['PYTHONPATH']}"}
    for command in ("chat", "serve"):
        result = run_thriftbit(command, gguf, *(["-p", "x"] if command == "chat" else ["--port", "0"]), **broken)
        assert result.returncode == 1 and words in result.stderr and "Traceback" not in result.stderr
    doctor = run_thriftbit("doctor", **broken)
    assert words in doctor.stdout and "does not run here" in doctor.stdout


def test_a_name_that_is_not_utf_8_is_told(gguf: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9.gguf")
    try:
        odd.write_bytes(gguf.read_bytes())
    except OSError:
        pytest.skip("no such name on this file system")
    with pytest.raises(ThriftbitError, match="not valid UTF-8"), Engine(odd, context_tokens=64, threads=1):
        raise AssertionError("it was loaded")
    folder = tmp_path / os.fsdecode(b"\xe9")
    folder.mkdir()
    (folder / "model.gguf").write_bytes(gguf.read_bytes())
    with Engine(folder / "model.gguf", context_tokens=64, threads=1) as engine:
        assert engine.generate([1, 2, 3], max_tokens=1).generated_tokens == 1
