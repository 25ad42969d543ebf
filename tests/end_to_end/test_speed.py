"""Speed, memory, energy and answers, measured in real llama.cpp. Nothing here depends on how fast the machine is."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from thriftbit.demo import open_demo_model
from thriftbit.errors import UsageError
from thriftbit.machine.identity import describe_machine
from thriftbit.measurement.answers import DEFAULT_PROMPTS, measure_answers, own_prompts
from thriftbit.measurement.energy import EnergyMeter
from thriftbit.measurement.energy_linux import Battery, Rapl
from thriftbit.measurement.measurement import QUARTILES, Measurement, Subject
from thriftbit.measurement.quantities import QUANTITIES
from thriftbit.measurement.repetition import Workload, ordinary_tokens, repeat, try_out
from thriftbit.measurement.speed import FEWEST_TURNS, SpeedSettings, measure_speed
from thriftbit.measurement.subject import describe_subject
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.quantize import quantize
from thriftbit.runtime.thread_choice import choose_threads
from thriftbit.sources.open_model import open_model

File = tuple[Path, Subject]
QUICK = SpeedSettings(prompt_tokens=16, generated_tokens=8, context_tokens=64, threads=1, most_turns=3)
ALWAYS_MEASURED = ("load_time", "first_token_time", "prefill_rate", "decode_rate", "peak_memory")
WITH_REASON = ("energy_per_token", "peak_gpu_memory")


def subject_of(path: Path) -> Subject:
    return describe_subject(open_model(path, allow_requantize=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("speed")


def quantized(folder: Path, preset: str, name: str = "demo") -> File:
    model = open_demo_model()
    path = quantize(model, make_plan(model, preset), folder / f"{name}-{preset}.gguf").path
    return path, subject_of(path)


@pytest.fixture(scope="module")
def original(folder: Path) -> File:
    return quantized(folder, "F32")


@pytest.fixture(scope="module")
def small(folder: Path) -> File:
    return quantized(folder, "Q4_0")


@pytest.fixture(scope="module")
def damaged(folder: Path, small: File) -> File:
    """Return a GGUF that is cut off."""
    path = folder / "damaged.gguf"
    path.write_bytes(small[0].read_bytes()[:-50_000])
    return path, replace(small[1], name=path.name, fingerprint="damaged")


@pytest.fixture(scope="module")
def incomplete(folder: Path) -> File:
    """Return a file that is whole, but that llama.cpp refuses: its last matrix is missing."""
    model = open_demo_model()
    model = replace(model, tensors=model.tensors[:-1])
    path = quantize(model, make_plan(model, "Q4_0"), folder / "incomplete.gguf").path
    return path, subject_of(path)


@pytest.fixture(scope="module")
def chat(folder: Path) -> File:
    """Return a Q8_0 file of the demo model with a chat template."""
    model = open_demo_model()
    template = "{% for message in messages %}Q: {{ message.content }} A:{% endfor %}"
    model = replace(model, metadata={**model.metadata, "tokenizer.chat_template": template})
    path = quantize(model, make_plan(model, "Q8_0"), folder / "chat.gguf").path
    return path, subject_of(path)


@pytest.fixture(scope="module")
def rows(original: File, small: File, damaged: File, incomplete: File) -> list[Measurement]:
    return list(measure_speed([small, damaged, incomplete], original, QUICK, command="thriftbit measure"))


def of(rows: list[Measurement], subject: Subject) -> dict[str, Measurement]:
    return {row.what: row for row in rows if row.subject == subject}


def test_every_number_of_the_file_and_the_original_is_there(
    rows: list[Measurement], original: File, small: File
) -> None:
    for _, subject in (original, small):
        found = of(rows, subject)
        assert found["file_size"].value == subject.size_bytes and not found["file_size"].settings
        for what in ALWAYS_MEASURED:
            value = found[what].value
            assert value is not None and value > 0, what
        for what in ("load_time", "first_token_time", "prefill_rate", "decode_rate"):
            row = found[what]
            assert row.interval == QUARTILES and row.low <= row.value <= row.high  # type: ignore[operator]
        for what in WITH_REASON:
            assert found[what].value is not None or found[what].note.startswith("not measurable here: ")
        memory = found["peak_memory"]
        assert memory.value is not None and memory.value > memory.detail["before_loading_bytes"]


def test_every_ratio_is_to_the_original(rows: list[Measurement], original: File, small: File) -> None:
    ours, theirs = of(rows, small[1]), of(rows, original[1])
    ratios = {what for what in QUANTITIES if what.endswith("_ratio") and what.removesuffix("_ratio") in theirs}
    assert ratios == {what for what in ours if what.endswith("_ratio")} and len(ratios) == len(ALWAYS_MEASURED) + 1
    assert not any(what.endswith("_ratio") for what in theirs)
    for what in ratios - {"energy_per_token_ratio"}:
        value = ours[what].value
        assert ours[what].against == original[1] and value is not None and value > 0
    peak, least = ours["peak_memory"].value, theirs["peak_memory"].value
    assert peak and least and ours["peak_memory_ratio"].value == peak / least
    assert original[1].size_bytes > small[1].size_bytes + 8e6 and peak < least  # 15 MB of weights tell


def test_rows_say_how_they_were_measured(rows: list[Measurement], small: File) -> None:
    for row in rows:
        assert row.command == "thriftbit measure" and row.machine == describe_machine() and row.time
        assert row.versions["llama.cpp"].startswith("xllamacpp ") and row.versions["thriftbit"]
    for row in of(rows, small[1]).values():
        if row.what != "file_size":
            assert dict(row.settings) == {
                "prompt_tokens": 16,
                "generated_tokens": 8,
                "context_tokens": 64,
                "threads": 1,
                "device": row.settings["device"],
                "repetitions": FEWEST_TURNS,
            }


def test_a_file_that_fails_leaves_the_others_alone(
    rows: list[Measurement], damaged: File, incomplete: File, small: File
) -> None:
    for (path, subject), reason in ((damaged, "damaged"), (incomplete, "llama.cpp could not run it: .*tensor")):
        failed = [row for row in rows if row.subject == subject and row.what != "file_size"]
        assert {row.what for row in failed} == set(of(rows, small[1])) - {"file_size"}
        for row in failed:
            assert row.value is None and str(path) in row.note
            assert row.settings.keys() == of(rows, small[1])["load_time"].settings.keys()
        assert re.search(reason, failed[0].note)


def kill_the_next_engine() -> None:
    """Kills the next process that this one starts, once it is well on its way"""

    def kill() -> None:
        deadline = time.monotonic() + 20
        while not (children := psutil.Process().children()) and time.monotonic() < deadline:
            time.sleep(0.01)
        for child in children:
            child.kill()

    threading.Thread(target=kill).start()


def test_an_engine_that_dies_midway_is_named_and_the_others_go_on(original: File, small: File) -> None:
    def progress(what: str, share: float) -> None:
        if what == f"{original[1].name}, turn 2":
            kill_the_next_engine()

    rows = list(measure_speed([small], original, replace(QUICK, most_turns=2), progress=progress))
    lost, kept = of(rows, original[1]), of(rows, small[1])
    assert lost["decode_rate"].value is None and "it ended with signal 9" in lost["decode_rate"].note
    assert str(original[0]) in lost["decode_rate"].note
    assert kept["decode_rate"].value and kept["decode_rate_ratio"].value is None
    assert kept["decode_rate_ratio"].note.startswith("of the original: ")


def test_ctrl_c_keeps_what_was_measured(original: File, small: File) -> None:
    def progress(what: str, share: float) -> None:
        if what.endswith("turn 2"):
            signal.default_int_handler(signal.SIGINT, None)

    rows: list[Measurement] = []
    with pytest.raises(KeyboardInterrupt):
        for row in measure_speed([small], original, QUICK, progress=progress):
            rows.append(row)  # one by one: `list` would lose them all
    ratio = of(rows, small[1])["decode_rate_ratio"]
    assert ratio.value and ratio.settings["repetitions"] == 1
    assert psutil.Process().children() == []


def test_without_an_original_there_are_no_ratios(small: File) -> None:
    found = of(list(measure_speed([small], None, replace(QUICK, most_turns=1))), small[1])
    assert found["decode_rate"].value and found["decode_rate"].against is None
    assert not any(what.endswith("_ratio") for what in found)


def test_what_would_take_forever_is_not_begun(small: File) -> None:
    impatient = replace(QUICK, generated_tokens=400, context_tokens=512, budget_seconds=0.001)
    row = of(list(measure_speed([small], None, impatient)), small[1])["decode_rate"]
    assert re.fullmatch(r"not measurable here: .*Q4_0\.gguf writes .* tokens/s .* give it more time", row.note)


def test_a_context_that_the_model_does_not_have(small: File) -> None:
    settings = replace(QUICK, prompt_tokens=600, context_tokens=1000)
    row = of(list(measure_speed([small], None, settings)), small[1])["prefill_rate"]
    assert row.value is None and "has a context of 512 tokens, and not of 608" in row.note


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="do not fit into a context of 100"):
        SpeedSettings(prompt_tokens=90, generated_tokens=20, context_tokens=100)
    with pytest.raises(UsageError, match="an answer of at least 2"):
        SpeedSettings(generated_tokens=1)


def test_the_prompt_is_ordinary_and_always_the_same(small: File) -> None:
    tokens, context_tokens = ordinary_tokens(small[0], 50)
    assert ordinary_tokens(small[0], 50) == (tokens, context_tokens) and context_tokens == 512
    assert len(tokens) == 50 and len(set(tokens)) > 25 and min(tokens) > 0  # 0 ends a text


def workload(path: Path, meter: EnergyMeter | str) -> Workload:
    prompt, _ = ordinary_tokens(path, 16)
    return Workload(prompt, generated_tokens=8, context_tokens=64, threads=1, longest_seconds=60, meter=meter)


@contextmanager
def ticking(root: Path) -> Iterator[None]:
    """A computer that uses 100 W, below `root` as Linux shows it"""
    zone = root / "class" / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "name").write_text("package-0")
    (zone / "max_energy_range_uj").write_text("262143328850")
    started, stopped = time.monotonic(), threading.Event()

    def tick() -> None:
        (zone / "next").write_text(str(round((time.monotonic() - started) * 100e6)))
        (zone / "next").replace(zone / "energy_uj")

    def tick_on() -> None:
        while not stopped.wait(0.01):
            tick()

    tick()
    thread = threading.Thread(target=tick_on)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def test_energy_is_counted_while_it_writes(small: File, tmp_path: Path) -> None:
    with ticking(tmp_path):
        started = time.monotonic()
        measured = repeat(small[0], workload(small[0], Rapl(tmp_path)))
        seconds = time.monotonic() - started
    assert isinstance(measured.energy_per_token, float)
    assert 0 < measured.energy_per_token < 100 * seconds / 8


def test_a_meter_that_fails_costs_the_energy_alone(small: File, tmp_path: Path) -> None:
    measured = repeat(small[0], workload(small[0], Battery(tmp_path)))
    assert measured.energy_per_token == "not measurable here: there is no battery" and measured.decode_rate > 0


def test_trying_out_tells_the_device(small: File) -> None:
    assert try_out(small[0], workload(small[0], "no meter"))


def test_the_number_of_threads_is_found_by_trying(small: File, damaged: File) -> None:
    assert 1 <= choose_threads(small[0], patience_seconds=0.1) <= int(describe_machine()["logical_cores"])


def test_answers_to_the_same_prompts(original: File, small: File, incomplete: File) -> None:
    prompts = [*DEFAULT_PROMPTS, *own_prompts(["The city", "x " * 3000])]
    rows = list(
        measure_answers([small, incomplete], original, prompts, max_tokens=6, threads=1, command="thriftbit measure")
    )
    assert [row.what for row in rows] == ["answer"] * 3 * len(prompts)
    ids = [prompt.id for prompt in prompts]
    assert len(set(ids)) == len(ids)
    for number, (_, subject) in enumerate((original, small, incomplete)):
        own = rows[number * len(prompts) : (number + 1) * len(prompts)]
        assert [row.settings["prompt_id"] for row in own] == ids
        assert {row.subject for row in own} == {subject}
        assert {row.against for row in own} == {original[1] if number else None}
        for row, prompt in zip(own, prompts, strict=True):
            assert row.detail["prompt"] == prompt.beginning and row.command == "thriftbit measure"
            if subject is incomplete[1]:
                assert row.value is None and "incomplete.gguf" in row.note
            elif prompt.id == "own-2":
                assert row.value is None and "context" in row.note
            else:
                assert row.value == 6 and row.detail["text"]


def test_models_that_chat_are_asked_and_do_not_continue(chat: File, damaged: File) -> None:
    asked, without = measure_answers([chat, damaged], None, DEFAULT_PROMPTS[:1], max_tokens=4, threads=1)
    assert asked.detail["prompt"] == DEFAULT_PROMPTS[0].question and asked.value == 4
    assert without.value is None and "damaged" in without.note


def test_one_file_that_only_continues_lets_all_continue(chat: File, original: File) -> None:
    rows = measure_answers([chat], original, DEFAULT_PROMPTS[:1], max_tokens=4, threads=1)
    assert {row.detail["prompt"] for row in rows} == {DEFAULT_PROMPTS[0].beginning}
