"""Plans for budgets, from made-up sensitivities: exact sizes, nothing beyond a limit, more bytes never more loss."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from thriftbit import UsageError, quantize
from thriftbit.errors import ThriftbitError
from thriftbit.formats import format_named
from thriftbit.quantization.allocation import Budget, CannotFitError, allocate, find_plan
from thriftbit.quantization.gguf_file import file_layout
from thriftbit.quantization.model_frontier import best_points, preset_points
from thriftbit.quantization.plan import make_plan
from thriftbit.quantization.sensitivity import CALIBRATED, PLAIN, Sensitivities, offered_formats
from thriftbit.sources.model import Model

RATES = {"Q2_K": 4e6, "Q3_K": 5e6, "Q4_K": 10e6, "Q6_K": 9e6, "Q8_0": 12e6, "F16": 12e6}


@pytest.fixture
def known(model: Model) -> Sensitivities:
    random = np.random.default_rng(1)
    losses = {
        tensor.name: {
            format.name: float(random.lognormal(0, 1) * 4.0**-format.bits_per_weight)
            for format in offered_formats(tensor)
        }
        for tensor in model.tensors
        if offered_formats(tensor)
    }
    savings = {name: 0.2 if "attn" in name else 0.9 for name in losses}
    return Sensitivities(model.fingerprint, losses, savings, {}, ())


def test_no_byte_too_many(model: Model, known: Sensitivities, tmp_path: Path) -> None:
    sizes = [file_layout(model, make_plan(model, preset)).file_size_bytes for preset in ("Q3_K_S", "Q4_K_M", "Q6_K")]
    for size_bytes in (*sizes, sizes[1] + 1, sizes[1] + 33):
        found = find_plan(model, known, Budget(size_bytes=size_bytes))
        result = quantize(model, found.plan, tmp_path / f"{size_bytes}.gguf")
        assert result.path.stat().st_size == found.size_bytes <= size_bytes
        assert found.size_bytes > 0.9 * size_bytes
        assert found.gap < 0.2


def test_sizes_of_every_kind_are_kept(model: Model, known: Sensitivities) -> None:
    middle = file_layout(model, make_plan(model, "Q4_K_M")).file_size_bytes
    for size_bytes in range(middle, middle + 700, 7):
        assert find_plan(model, known, Budget(size_bytes=size_bytes), CALIBRATED).size_bytes <= size_bytes


def test_a_preset_of_the_same_size_loses_more(model: Model, known: Sensitivities) -> None:
    for preset in preset_points(model, known, PLAIN):
        if preset.name in ("Q4_K_M", "Q3_K_M", "Q4_0"):
            (best,) = best_points(model, known, PLAIN, [preset.size_bytes])
            assert best.loss.value < preset.loss.value


def test_more_bytes_never_lose_more(model: Model, known: Sensitivities) -> None:
    points = best_points(model, known, PLAIN)
    assert len(points) > 8
    for smaller, larger in pairwise(points):
        assert larger.size_bytes > smaller.size_bytes and larger.loss.value < smaller.loss.value


def test_bits_per_weight(model: Model, known: Sensitivities) -> None:
    plan = allocate(model, known, Budget(bits_per_weight=5.0))
    assert 4.7 < plan.bits_per_weight(model) <= 5.0
    assert plan.preset == "custom" and "5.00 bits per weight" in plan.provenance
    assert all(plan.formats[tensor.name] == "F32" for tensor in model.tensors if not offered_formats(tensor))


def test_the_smallest_that_loses_no_more(model: Model, known: Sensitivities) -> None:
    found = find_plan(model, known, Budget(max_loss=0.05))
    assert found.loss.high <= np.log(1.05)
    strict = find_plan(model, known, Budget(max_loss=0.02))
    assert strict.size_bytes > found.size_bytes
    with pytest.raises(CannotFitError, match="closest to the original"):
        find_plan(model, known, Budget(max_loss=1e-12))
    with pytest.raises(CannotFitError, match="no plan"):
        find_plan(model, known, Budget(max_loss=0.02, size_bytes=found.size_bytes))


def test_speed_is_a_limit(model: Model, known: Sensitivities) -> None:
    def seconds(formats: dict[str, str]) -> float:
        read = [t for t in model.tensors if t.name in known.losses and t.name != "token_embd.weight"]
        return sum(t.rows * format_named(formats[t.name]).row_bytes(t.width) / RATES[formats[t.name]] for t in read)

    free = find_plan(model, known, Budget(bits_per_weight=5.5))
    fast = find_plan(model, known, Budget(bits_per_weight=5.5, seconds_per_token=0.007, rates=RATES))
    assert {*fast.plan.formats.values()} <= {*RATES, "F32"}
    assert seconds(dict(fast.plan.formats)) <= 0.00701
    assert fast.loss.value >= free.loss.value
    with pytest.raises(CannotFitError, match="fastest"):
        find_plan(model, known, Budget(bits_per_weight=5.5, seconds_per_token=1e-5, rates=RATES))


def test_what_rounding_saves_moves_bits(model: Model, known: Sensitivities) -> None:
    moved = 0
    for bits in (3.0, 4.0, 5.0, 6.0):
        budget = Budget(bits_per_weight=bits)
        plain, calibrated = (find_plan(model, known, budget, effort) for effort in (PLAIN, CALIBRATED))
        assert calibrated.loss.value < plain.loss.value
        moved += calibrated.plan.formats != plain.plan.formats
    assert moved


def test_formats_that_are_not_known_are_not_used(model: Model, known: Sensitivities) -> None:
    losses = {name: {each: loss for each, loss in own.items() if each != "Q4_K"} for name, own in known.losses.items()}
    fewer = Sensitivities(known.fingerprint, losses, {}, {}, ())
    assert "Q4_K" not in allocate(model, fewer, Budget(bits_per_weight=5.0)).formats.values()


def test_budgets_that_make_no_sense() -> None:
    for budget in ({}, {"size_bytes": 0}, {"bits_per_weight": -1.0}, {"size_bytes": 1, "bits_per_weight": 1.0}):
        with pytest.raises(UsageError):
            Budget(**budget)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="rates"):
        Budget(seconds_per_token=1.0)


def test_too_small_is_told_with_what_there_is(model: Model, known: Sensitivities) -> None:
    with pytest.raises(CannotFitError, match="The smallest is") as error:
        find_plan(model, known, Budget(size_bytes=1000))
    assert error.value.exit_code == 3


def test_a_map_of_another_model_is_refused(model: Model, known: Sensitivities) -> None:
    other = Sensitivities("another", known.losses, {}, {}, ())
    with pytest.raises(ThriftbitError, match="another model"):
        find_plan(model, other, Budget(bits_per_weight=5.0))
