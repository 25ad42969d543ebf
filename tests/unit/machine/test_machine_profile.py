"""Profiles: there and back, for this hardware only, and never from a stranger unchecked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from recorded import MACHINES, recorded
from test_machine_detection import facts_from

from thriftbit.errors import ThriftbitError
from thriftbit.machine.facts import Facts, known
from thriftbit.machine.meaning import outlooks, room_bytes, sentences
from thriftbit.machine.profile import (
    Bandwidth,
    FormatRate,
    Profile,
    Spread,
    StepCost,
    load_profile,
    profile_file,
    profile_of,
    store_profile,
    stored_profile,
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTBIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def facts() -> Facts:
    return facts_from(recorded(MACHINES / "laptop-intel-hybrid.txt"))


def measured(facts: Facts) -> Profile:
    rates = tuple(
        FormatRate(name, 4, Spread(rate, 0.9 * rate, 1.1 * rate), Spread(70e9, 60e9, 80e9))
        for name, rate in (("Q4_K", 20e9), ("Q8_0", 30e9), ("F16", 35e9))
    )
    return Profile(
        facts,
        bandwidth=(Bandwidth(1, Spread(2e10, 1.9e10, 2.1e10)),),
        rates=(*rates, FormatRate("Q4_K", 1, Spread(5e9, 4e9, 6e9), Spread(2e10, 2e10, 2e10))),
        step_costs=(StepCost(4, 1e-4, 2e-4),),
        disk_read_bytes_per_second=Spread(2e9, 1e9, 3e9),
        best_threads=4,
        measured_at="2026-01-01T00:00:00+00:00",
        engine="xllamacpp 1",
        device="CPU",
        busy_cores=0.5,
    )


def test_there_and_back(facts: Facts) -> None:
    profile = measured(facts)
    assert Profile.from_json(profile.to_json()) == profile
    assert Profile.from_json(Profile(facts).to_json()) == Profile(facts)


def test_what_was_measured_is_kept_with_the_facts_of_now(facts: Facts) -> None:
    assert profile_of(facts) == Profile(facts)
    store_profile(measured(facts))
    now = replace(facts, memory=replace(facts.memory, available_bytes=known(1, "now")))
    stored = stored_profile(now)
    assert stored is not None
    assert stored.facts == now
    assert stored.rates == measured(facts).rates
    assert [path.name for path in profile_file().parent.iterdir()] == ["profile.json"]


def test_other_hardware_has_no_profile(facts: Facts) -> None:
    store_profile(measured(facts))
    other_processor = replace(facts, processor=replace(facts.processor, name=known("another", "test")))
    more_memory = replace(facts, memory=replace(facts.memory, total_bytes=known(64 << 30, "test")))
    gpu_gone = replace(facts, gpus=())
    fewer_cores = replace(facts, processor=replace(facts.processor, usable_cores=known(2.0, "test")))
    for changed in (other_processor, more_memory, gpu_gone, fewer_cores):
        assert stored_profile(changed) is None
    firmware_update = replace(facts, memory=replace(facts.memory, total_bytes=known(16054296 * 1024 - 4096, "test")))
    assert stored_profile(firmware_update) is not None


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"thriftbit_profile": 1}'])
def test_a_damaged_file_in_the_cache_counts_as_none(facts: Facts, content: bytes) -> None:
    store_profile(measured(facts))
    profile_file().write_bytes(content)
    assert stored_profile(facts) is None


def forged(facts: Facts, *place: str | int, value: object) -> str:
    document = json.loads(measured(facts).to_json())
    target = document
    for name in place[:-1]:
        target = target[name]
    target[place[-1]] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("thriftbit_profile",), 99),
        (("facts",), None),
        (("facts", "memory", "total_bytes", "value"), "much"),
        (("facts", "memory", "total_bytes", "value"), True),
        (("facts", "processor", "instruction_sets", "value"), [1]),
        (("rates",), {}),
        (("rates", 0, "threads"), 1.5),
        (("rates", 0, "decode_bytes_per_second", "median"), float("nan")),
        (("rates", 0, "decode_bytes_per_second"), None),
        (("rates", 0, "decode_bytes_per_second", "median"), 0),
        (("rates", 0, "decode_bytes_per_second", "low"), -1),
        (("bandwidth", 0), 3),
        (("best_threads",), "four"),
    ],
)
def test_a_forged_profile_is_refused_with_its_name(
    facts: Facts, tmp_path: Path, place: tuple[str | int, ...], value: object
) -> None:
    path = tmp_path / "profile.json"
    path.write_text(forged(facts, *place, value=value))
    with pytest.raises(ThriftbitError, match=r"profile\.json: is no profile of a computer"):
        load_profile(path)


def test_what_a_later_version_added_is_passed_over(facts: Facts, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(forged(facts, "facts", "coffee_machine", value={"brand": 1}))
    assert load_profile(path) == measured(facts)


def test_a_file_that_is_no_profile(tmp_path: Path) -> None:
    with pytest.raises(ThriftbitError, match="does not exist"):
        load_profile(tmp_path / "missing.json")
    large = tmp_path / "large.json"
    large.write_bytes(b" " * (5 << 20))
    with pytest.raises(ThriftbitError, match="which no file of this kind is"):
        load_profile(large)


def test_what_it_means_for_a_typical_model(facts: Facts) -> None:
    profile = measured(facts)
    by_format = {each.format: each for each in outlooks(profile)}
    assert list(by_format) == ["F16", "Q8_0", "Q4_K"]  # those measured with four threads, from the largest
    four_bits = by_format["Q4_K"]
    assert four_bits.size_bytes == 7_000_000_000 * 144 // 256
    assert four_bits.writes.median == pytest.approx(1 / (four_bits.size_bytes / 20e9 + 32 * 1e-4 + 2e-4))
    assert four_bits.writes.low < four_bits.writes.median < four_bits.writes.high
    assert four_bits.reads.median == pytest.approx(10.0)
    free = facts.memory.available_bytes.value
    assert free is not None and room_bytes(profile) == free
    assert four_bits.fits is True and by_format["F16"].fits is False
    text = " ".join(sentences(profile))
    assert "7 billion weights in 4 bits (3.94 GB) fits and would write about 5" in text
    assert "about as fast as most people read" in text


def test_nothing_is_predicted_of_what_was_not_measured(facts: Facts) -> None:
    assert outlooks(Profile(facts)) == []
    assert len(list(sentences(Profile(facts)))) == 1


def test_on_a_gpu_its_memory_counts() -> None:
    facts = facts_from(recorded(MACHINES / "desktop-ryzen-rtx-3090.txt"))
    on_gpu = replace(measured(facts), device="NVIDIA GeForce RTX 3090")
    assert room_bytes(on_gpu) == 24696061952
    assert room_bytes(measured(facts)) == facts.memory.available_bytes.value
