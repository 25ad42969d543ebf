"""What repetitions add up to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from thriftbit.measurement.measurement import EXACT, QUARTILES, Measurement, Subject
from thriftbit.measurement.repetition import Repetition
from thriftbit.measurement.speed import FEWEST_TURNS, SpeedSettings, is_enough
from thriftbit.measurement.speed_rows import Measured, speed_rows

ORIGINAL = Subject("big", "F16", "a", 1000, 16.0)
QUANTIZED = Subject("small", "Q4_0", "b", 300, 4.5)
SETTINGS = {"prompt_tokens": 8, "threads": 1}
FIRST = Repetition(
    load_seconds=2.0,
    first_token_seconds=1.0,
    prefill_rate=100.0,
    decode_rate=10.0,
    peak_memory_bytes=5000,
    before_loading_bytes=700,
    peak_gpu_memory_bytes="not measurable here: llama.cpp uses no GPU",
    energy_per_token=3.0,
)


def slower(repetition: Repetition, factor: float) -> Repetition:
    return replace(
        repetition, decode_rate=repetition.decode_rate / factor, load_seconds=repetition.load_seconds * factor
    )


def rows(measured: Measured, original: Measured | None = None, energy_of: str = "") -> dict[str, Measurement]:
    found = list(speed_rows(measured, original, SETTINGS, energy_of, {"command": "thriftbit measure x"}))
    assert len({row.what for row in found}) == len(found)
    return {row.what: row for row in found}


def test_medians_and_quartiles_of_what_was_repeated() -> None:
    rates = [10.0, 11.0, 12.0, 13.0, 40.0]
    found = rows(Measured(QUANTIZED, [replace(FIRST, decode_rate=rate) for rate in rates]))
    row = found["decode_rate"]
    assert (row.value, row.low, row.high, row.interval) == (12.0, 11.0, 13.0, QUARTILES)
    assert dict(row.settings) == {**SETTINGS, "repetitions": 5}
    assert row.against is None and row.command == "thriftbit measure x"
    assert not any(what.endswith("_ratio") for what in found)


def test_the_most_memory_counts_and_has_no_interval() -> None:
    found = rows(Measured(QUANTIZED, [FIRST, replace(FIRST, peak_memory_bytes=5200)]))["peak_memory"]
    assert (found.value, found.low, found.high, found.interval) == (5200, None, None, EXACT)
    assert found.detail == {"before_loading_bytes": 700}


def test_ratios_are_paired_so_that_drift_cancels() -> None:
    original = [slower(FIRST, factor) for factor in (1, 5, 2, 9)]
    quantized = [replace(slower(FIRST, factor / 3), peak_memory_bytes=2000) for factor in (1, 5, 2, 9)]
    found = rows(Measured(QUANTIZED, quantized), Measured(ORIGINAL, original))
    for what, ratio in {"decode_rate_ratio": 3.0, "load_time_ratio": 1 / 3}.items():
        row = found[what]
        assert [row.value, row.low, row.high] == pytest.approx([ratio] * 3)
        assert row.against == ORIGINAL and row.interval == QUARTILES
    assert found["peak_memory_ratio"].value == 2000 / 5000
    assert found["decode_rate"].against == ORIGINAL


def test_a_single_repetition_claims_no_interval() -> None:
    found = rows(Measured(QUANTIZED, [FIRST]), Measured(ORIGINAL, [FIRST]))
    for what in ("decode_rate", "decode_rate_ratio"):
        assert (found[what].low, found[what].high, found[what].interval) == (None, None, EXACT)


def test_a_round_that_was_cut_short_pairs_what_is_whole() -> None:
    found = rows(Measured(QUANTIZED, [slower(FIRST, 0.5)]), Measured(ORIGINAL, [FIRST, slower(FIRST, 7)]))
    assert found["decode_rate_ratio"].value == pytest.approx(2.0)


def test_an_original_whose_first_turn_was_interrupted_has_no_ratios() -> None:
    found = rows(Measured(QUANTIZED, [FIRST]), Measured(ORIGINAL, []))
    for what in ("decode_rate_ratio", "peak_memory_ratio"):
        assert found[what].value is None and "interrupted" in found[what].note


@pytest.mark.parametrize(
    ("measured", "original", "of_the_file", "of_the_ratio"),
    [
        (Measured(QUANTIZED, [FIRST], "x.gguf: broke"), Measured(ORIGINAL, [FIRST]), "x.gguf: broke", "x.gguf: broke"),
        (
            Measured(QUANTIZED, [FIRST]),
            Measured(ORIGINAL, [], "o.gguf: too big"),
            "",
            "of the original: o.gguf: too big",
        ),
    ],
)
def test_what_failed_says_why_and_keeps_its_settings(
    measured: Measured, original: Measured, of_the_file: str, of_the_ratio: str
) -> None:
    found = rows(measured, original)
    for row in found.values():
        if row.what == "peak_gpu_memory" or row.what.startswith("energy"):
            continue
        expected = of_the_ratio if row.what.endswith("_ratio") else of_the_file
        assert row.note == expected and (row.value is None) is bool(expected), row.what
        assert dict(row.settings) == {**SETTINGS, "repetitions": 1}


def test_energy_says_whose_it_is_or_why_there_is_none() -> None:
    found = rows(Measured(QUANTIZED, [FIRST]), Measured(ORIGINAL, [FIRST]), "the processor (RAPL)")
    assert found["energy_per_token"].value == 3.0 and found["energy_per_token"].note == "of the processor (RAPL)"
    assert found["energy_per_token_ratio"].value == 1.0
    reason = "not measurable here: there is no battery"
    without: dict[str, Any] = {"repetitions": [replace(FIRST, energy_per_token=reason)]}
    found = rows(Measured(QUANTIZED, **without), Measured(ORIGINAL, **without))
    assert {found[what].note for what in ("energy_per_token", "energy_per_token_ratio")} == {reason}


def test_gpu_memory_has_a_reason_and_no_ratio() -> None:
    found = rows(Measured(QUANTIZED, [FIRST]), Measured(ORIGINAL, [FIRST]))
    assert found["peak_gpu_memory"].note == "not measurable here: llama.cpp uses no GPU"
    assert "peak_gpu_memory_ratio" not in found


@pytest.mark.parametrize(
    ("turns", "turn_seconds", "left_seconds", "enough"),
    [
        (1, 5.0, 55.0, False),
        (1, 61.0, -1.0, True),  # one turn takes longer than all the time there is
        (2, 59.0, -40.0, False),  # the fewest turns are taken even if they take longer together
        (FEWEST_TURNS, 5.0, 5.5, False),
        (FEWEST_TURNS, 5.0, 4.5, True),
        (8, 0.1, 30.0, False),
        (9, 0.1, 30.0, True),
    ],
)
def test_as_many_turns_as_the_time_allows(turns: int, turn_seconds: float, left_seconds: float, enough: bool) -> None:
    assert is_enough(turns, turn_seconds, left_seconds, SpeedSettings(budget_seconds=60, most_turns=9)) is enough
