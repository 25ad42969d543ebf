"""Predictions from profiles that are written down here, so that every number can be checked by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from thriftbit.containers.entry import Entry
from thriftbit.formats import format_named
from thriftbit.machine.corrections import Correction, Run, correction_from, read_correction, record
from thriftbit.machine.detect import detect
from thriftbit.machine.model_shape import ModelShape
from thriftbit.machine.predict import decode_rate, energy_per_token, first_token_seconds, prefill_rate
from thriftbit.machine.prediction import Prediction, exact, unknown
from thriftbit.machine.profile import Bandwidth, FormatRate, Profile, Spread, StepCost
from thriftbit.machine.rates import busiest_tokens, format_rates
from thriftbit.sources.architectures.layer_cache import LayerCache

GIGA = 1e9


def spread(median: float, around: float = 0.1) -> Spread:
    return Spread(median, median * (1 - around), median * (1 + around))


def rate(format: str, decode: float, threads: int = 4) -> FormatRate:
    return FormatRate(format, threads, spread(decode), spread(100 * GIGA))


PROFILE = Profile(
    facts=detect(),
    bandwidth=(Bandwidth(4, spread(40 * GIGA)),),
    rates=(rate("Q4_K", 20 * GIGA), rate("Q8_0", 30 * GIGA), rate("F32", 40 * GIGA)),
    step_costs=(StepCost(4, 0.0, 0.0, 0.0),),
    best_threads=4,
    measured_at="2026-11-01T12:00:00+00:00",
    device="CPU",
)


def shape(*formats: str, experts: tuple[int, int] = (0, 0), layers: int = 2, window: int = 0) -> ModelShape:
    """A model of one matrix of 4096 x 4096 in each format"""
    matrix = (experts[0], 4096, 4096) if experts[0] else (4096, 4096)
    name = "blk.{}.ffn_up_exps.weight" if experts[0] else "blk.{}.ffn_up.weight"
    entries = [Entry(name.format(number), matrix, format_named(each)) for number, each in enumerate(formats)]
    return ModelShape(
        entries=(*entries, Entry("output.weight", (1000, 4096), format_named("F32"))),
        layers=(LayerCache(1024, 1024, window),) * layers,
        width=4096, ffn=4096, query=4096, expert_ffn=4096 if experts[0] else 0,
        experts=experts[0], experts_used=experts[1], context_tokens=32768, tokens=0, merges=0,
    )  # fmt: skip


def seconds_of(prediction: Prediction) -> float:
    assert prediction.value is not None
    return 1 / prediction.value


def test_a_token_takes_the_bytes_of_each_format_over_its_rate() -> None:
    model = shape("Q4_K", "Q8_0")
    found = seconds_of(decode_rate(model, PROFILE, filled_tokens=0))
    weights = 4096 * 4096
    by_hand = weights * 4.5 / 8 / (20 * GIGA) + weights * 8.5 / 8 / (30 * GIGA) + 1000 * 4096 * 4 / (40 * GIGA)
    assert found == pytest.approx(by_hand)


def test_of_a_mixture_only_the_chosen_experts_are_read() -> None:
    all_of_them = seconds_of(decode_rate(shape("Q4_K", experts=(8, 8)), PROFILE, filled_tokens=0))
    two = seconds_of(decode_rate(shape("Q4_K", experts=(8, 2)), PROFILE, filled_tokens=0))
    output = 1000 * 4096 * 4 / (40 * GIGA)
    assert two - output == pytest.approx((all_of_them - output) / 4)


def test_the_text_so_far_is_read_too_but_not_beyond_a_window() -> None:
    empty = seconds_of(decode_rate(shape("Q4_K"), PROFILE, filled_tokens=0))
    full = seconds_of(decode_rate(shape("Q4_K"), PROFILE, filled_tokens=8192))
    windowed = seconds_of(decode_rate(shape("Q4_K", window=1024), PROFILE, filled_tokens=8192))
    assert full - empty == pytest.approx(2 * 8192 * 2048 * 2 / (40 * GIGA))
    assert windowed - empty == pytest.approx((full - empty) / 8)


def test_steps_cost_what_was_measured() -> None:
    slow = replace(PROFILE, step_costs=(StepCost(4, 0.001, 0.002, 0.0),))
    more = seconds_of(decode_rate(shape("Q4_K"), slow)) - seconds_of(decode_rate(shape("Q4_K"), PROFILE))
    assert more == pytest.approx(2 * 0.001 + 0.002)


def test_looking_back_costs_more_than_reading_what_was_kept() -> None:
    """For every number of a query, every layer and every token that the busiest thread looks back at"""
    slow = replace(PROFILE, step_costs=(StepCost(4, 0.0, 0.0, 1e-9),))
    for window, seen in ((0, 8448 / 4), (1024, 1280 / 4)):
        model = shape("Q4_K", window=window)
        more, less = (seconds_of(decode_rate(model, each, filled_tokens=8192)) for each in (slow, PROFILE))
        assert more - less == pytest.approx(2 * 4096 * seen * 1e-9)
    unmeasured = decode_rate(shape("Q4_K"), replace(PROFILE, step_costs=(StepCost(4, 0.0, 0.0),)), filled_tokens=8192)
    assert unmeasured.value and unmeasured.low and unmeasured.high
    assert unmeasured.high / unmeasured.low > 5  # nearly all of it is looking back, and nobody knows how fast that is


def test_other_numbers_of_threads_lie_between_those_that_were_measured() -> None:
    """Fewer threads are not faster, and twice as many are at most twice as fast and no faster than memory"""
    scaling = replace(PROFILE, rates=(rate("Q4_K", 8 * GIGA, 1), rate("Q4_K", 20 * GIGA, 4)))
    two = format_rates(scaling, 2)["Q4_K"].decode_bytes_per_second
    assert two.low == pytest.approx(max(0.9 * 8 * GIGA, 0.9 * 20 * GIGA / 2))
    assert two.high == pytest.approx(1.1 * 8 * GIGA * 2)
    assert two.low < two.median < two.high
    (one,) = (each.decode_bytes_per_second for each in format_rates(PROFILE, 1).values() if each.format == "F32")
    assert one.low == pytest.approx(0.9 * 10 * GIGA) and one.high == pytest.approx(1.1 * 40 * GIGA)
    many = format_rates(scaling, 16)["Q4_K"].decode_bytes_per_second
    assert many.high == pytest.approx(1.1 * 40 * GIGA)
    asked = decode_rate(shape("Q4_K"), scaling, threads=2)
    assert asked.value and asked.low and asked.high and asked.low < asked.value < asked.high


def test_without_a_measurement_there_is_no_number() -> None:
    for profile in (None, Profile(detect())):
        found = decode_rate(shape("Q4_K"), profile)
        assert (found.value, found.low, found.high) == (None, None, None)
        assert "thriftbit doctor --measure" in found.reason
        assert prefill_rate(shape("Q4_K"), profile).value is None


def test_bandwidth_alone_gives_a_wide_interval() -> None:
    wide = decode_rate(shape("Q4_K"), replace(PROFILE, rates=()))
    narrow = decode_rate(shape("Q4_K"), PROFILE)
    assert wide.low and wide.high and narrow.low and narrow.high
    assert wide.high / wide.low > 3 * narrow.high / narrow.low
    assert "Q4_K was not measured" in wide.reason


def test_a_format_that_was_not_measured_lies_between_those_that_were() -> None:
    found = decode_rate(shape("Q5_K"), PROFILE, filled_tokens=0)
    output, matrix = 1000 * 4096 * 4 / (40 * GIGA), 4096 * 4096 * 5.5 / 8
    assert found.low and found.high
    assert found.low < 1 / (output + matrix / (20 * GIGA)) < 1 / (output + matrix / (40 * GIGA)) < found.high
    assert "Q5_K was not measured" in found.reason


@pytest.mark.parametrize(
    ("seen", "threads", "busiest"),
    [(128, 1, 128), (128, 2, 64), (256, 2, 256), (480, 2, 256), (512, 2, 384), (1000, 2, 512), (1024, 2, 640)],
)
def test_threads_share_the_cells_of_the_cache_and_not_the_text(seen: float, threads: int, busiest: float) -> None:
    assert busiest_tokens(seen, threads) == busiest
    assert busiest_tokens(seen, threads, half_precision=False) == seen / threads


def test_a_family_that_is_not_known_has_no_speed() -> None:
    assert decode_rate(replace(shape("Q4_K"), layers=None), PROFILE).value is None


def test_a_busy_machine_is_less_sure() -> None:
    idle, busy = (decode_rate(shape("Q4_K"), replace(PROFILE, busy_cores=cores)) for cores in (0.0, 1000.0))
    assert idle.low and idle.high and busy.low and busy.high
    assert busy.low < idle.low < idle.high < busy.high
    assert "other programs" in busy.reason and "other programs" not in idle.reason


def test_a_prompt_is_weights_and_attention_over_the_arithmetic() -> None:
    unmeasured = replace(PROFILE, step_costs=())
    found = seconds_of(prefill_rate(shape("Q4_K"), unmeasured, prompt_tokens=1000))
    assert found == pytest.approx((4096 * 4096 + 2 * 4096 * 2 * 500) / (100 * GIGA))
    measured = replace(PROFILE, step_costs=(StepCost(4, 0.0, 0.0, 1e-9),))
    found = seconds_of(prefill_rate(shape("Q4_K"), measured, prompt_tokens=1000))
    assert found == pytest.approx(4096 * 4096 / (100 * GIGA) + 0.3 * 2 * 4096 * 500 / 4 * 1e-9)


def test_the_first_token_comes_after_the_prompt() -> None:
    found = first_token_seconds(Prediction(100, 50, 200, ""), Prediction(10, 5, 20, ""), 1000)
    assert (found.value, found.low, found.high) == (10.1, 5.05, 20.2)
    assert first_token_seconds(unknown("why"), exact(1, ""), 10) == unknown("why")


def test_energy_is_power_over_speed() -> None:
    found = energy_per_token(Prediction(10, 8, 12, ""), Spread(20, 18, 22))
    assert (found.value, found.low, found.high) == (2, 1.5, 22 / 8)
    assert energy_per_token(Prediction(10, 8, 12, ""), None).value is None


def runs(*factors: float) -> list[Run]:
    return [Run("decode_rate", 10.0, 10.0 * factor, PROFILE.measured_at or "") for factor in factors]


def test_runs_correct_what_comes_after_them() -> None:
    correction = correction_from(runs(*[0.8] * 20))
    assert correction.factor == pytest.approx(0.8, abs=0.03)
    plain = decode_rate(shape("Q4_K"), PROFILE)
    better = decode_rate(shape("Q4_K"), PROFILE, correction=correction)
    assert plain.value and better.value == pytest.approx(plain.value * correction.factor)
    assert "20 real runs" in better.reason


def test_one_run_corrects_little() -> None:
    assert correction_from(runs(0.5)).factor == pytest.approx(0.5 ** (1 / 3))


def test_the_interval_holds_nine_of_ten_runs() -> None:
    factors = [0.6, 0.8, 0.9, 0.95, 1.0, 1.0, 1.05, 1.1, 1.2, 1.5]
    found = correction_from(runs(*factors))
    inside = [factor for factor in factors if found.factor * found.low <= factor <= found.factor * found.high]
    assert len(inside) >= 9


def test_runs_are_kept_beside_the_profile_they_belong_to(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    record(runs(0.8, 0.9), path)
    path.write_text(path.read_text() + 'half a line\n{"what": "decode_rate"}\n[]\n')
    record([replace(runs(3.0)[0], measured_at="another day")], path)
    assert read_correction("decode_rate", PROFILE, path).runs == 2
    assert read_correction("prefill_rate", PROFILE, path).runs == 0
    assert read_correction("decode_rate", None, path) == Correction(1.0, 0.75, 1.25, 0)
