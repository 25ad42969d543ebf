"""What fits here and how fast it shall be, as bytes and seconds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from thriftbit import UsageError
from thriftbit.advice import budget as budgets
from thriftbit.advice.budget import NotMeasuredError, Request, budget_for
from thriftbit.demo import open_demo_model
from thriftbit.machine.detect import detect
from thriftbit.machine.facts import Fact, Facts
from thriftbit.machine.memory_needed import memory_needed
from thriftbit.machine.model_shape import shape_of
from thriftbit.machine.predict import decode_rate
from thriftbit.machine.profile import FormatRate, Profile, Spread
from thriftbit.quantization.allocation import CannotFitError
from thriftbit.quantization.plan import make_plan
from thriftbit.sources.model import Model

FORMATS = ("F16", "Q8_0", "Q6_K", "Q4_K", "Q2_K")


@pytest.fixture(scope="module")
def model() -> Model:
    return open_demo_model()


def with_memory(available_bytes: int) -> Facts:
    facts = detect()
    memory = replace(facts.memory, available_bytes=Fact(available_bytes, "made up"))
    return replace(facts, memory=memory, gpus=())


def test_nothing_but_numbers_needs_no_machine(model: Model) -> None:
    budget = budget_for(model, Request(size_bytes=4_000_000, max_loss=0.01))
    assert (budget.size_bytes, budget.max_loss, budget.rates) == (4_000_000, 0.01, None)
    assert not Request() and Request(fits=True) and Request(max_loss=0.1)


def test_what_fits_leaves_room_for_the_rest(model: Model) -> None:
    roomy, tight = (budget_for(model, Request(fits=True), with_memory(size)) for size in (4_000_000_000, 3_000_000_000))
    assert roomy.size_bytes is not None and tight.size_bytes is not None
    assert roomy.size_bytes - tight.size_bytes == pytest.approx(1_000_000_000, rel=1e-6)
    shape = shape_of(model.architecture, model.metadata, make_plan(model, "Q8_0").entries(model))
    needed = memory_needed(shape, 512)
    assert needed.lasting.value is not None
    assert tight.size_bytes < 3_000_000_000 - (needed.lasting.value - needed.weights)
    both = budget_for(model, Request(size_bytes=1000, fits=True), with_memory(4_000_000_000))
    assert both.size_bytes == 1000
    with pytest.raises(CannotFitError, match="shorten --context"):
        budget_for(model, Request(fits=True), with_memory(1_000_000))


def test_speed_is_what_the_weights_may_take(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    rate = Spread(1e9, 0.9e9, 1.1e9)
    rates = tuple(FormatRate(name, 2, rate, rate) for name in FORMATS)
    profile = Profile(detect(), rates=rates, best_threads=2)
    monkeypatch.setattr(budgets, "stored_profile", lambda facts: profile)
    shape = shape_of(model.architecture, model.metadata, make_plan(model, "Q8_0").entries(model))
    reached = decode_rate(shape, profile).value
    assert reached is not None
    budget = budget_for(model, Request(tokens_per_second=reached))
    of_weights = shape.bytes_per_token()["Q8_0"] / 1e9
    assert budget.seconds_per_token == pytest.approx(of_weights, rel=0.05)  # what Q8_0 takes, to be as fast as Q8_0
    assert budget.rates == dict.fromkeys(FORMATS, 1e9)
    with pytest.raises(CannotFitError, match="out of reach"):
        budget_for(model, Request(tokens_per_second=1e7))


def test_a_speed_is_understood_where_only_one_format_was_measured(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = Spread(1e9, 0.9e9, 1.1e9)
    profile = Profile(detect(), rates=(FormatRate("Q4_K", 2, rate, rate),), best_threads=2)
    monkeypatch.setattr(budgets, "stored_profile", lambda facts: profile)
    budget = budget_for(model, Request(tokens_per_second=10))
    assert budget.rates == {"Q4_K": 1e9} and budget.seconds_per_token is not None and budget.seconds_per_token < 0.1


def test_a_computer_that_was_not_measured(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "stored_profile", lambda facts: None)
    with pytest.raises(NotMeasuredError, match="doctor --measure") as error:
        budget_for(model, Request(tokens_per_second=10))
    assert error.value.exit_code == 4


@pytest.mark.parametrize(
    "request_",
    [
        Request(size_bytes=1, bits_per_weight=4),
        Request(fits=True, bits_per_weight=4),
        Request(size_bytes=1, context_tokens=5),
    ],
)
def test_contradictions(model: Model, request_: Request) -> None:
    with pytest.raises(UsageError):
        budget_for(model, request_)
