"""Which file is tried next, and whether what was measured meets the wishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from conftest import ROOT
from thriftbit.advice.fit import fit
from thriftbit.advice.losses import LITERATURE, ExpectedLoss
from thriftbit.advice.options import Option
from thriftbit.advice.promises import MET, MISSED, OPEN, Tried, nearest, next_to_try
from thriftbit.advice.proving import Proof
from thriftbit.advice.wishes import Wishes
from thriftbit.cli.prove import proof_document, what_would_have_to_give
from thriftbit.machine.prediction import Prediction
from thriftbit.measurement.measurement import Measurement, Subject

LEVELS = {"Q8_0": (20.0, 0.001), "Q5_K_M": (30.0, 0.01), "Q4_K_M": (36.0, 0.03), "Q3_K_M": (44.0, 0.12)}
ERRORS = {"Q8_0": 1e-5, "Q5_K_M": 1e-3, "Q4_K_M": 4e-3, "Q3_K_M": 2e-2}
SIZES = {"Q8_0": 8, "Q5_K_M": 5, "Q4_K_M": 4, "Q3_K_M": 3}  # MB
WISHES = Wishes(min_speed=30, max_loss=0.02)


@pytest.fixture(scope="module")
def options() -> list[Option]:
    """Return four levels of the demo model whose speeds and losses are known, as published for others."""
    found = {option.name: option for option in fit(ROOT / "src" / "thriftbit" / "demo_model").options}
    return [
        replace(
            found[name],
            speed=Prediction(speed, 0.8 * speed, 1.2 * speed, ""),
            loss=ExpectedLoss(Prediction(lost, lost / 2, 2 * lost, ""), LITERATURE),
        )
        for name, (speed, lost) in LEVELS.items()
    ]


def tried(preset: str, speed: float, lost: float, spread: float = 0.01) -> Tried:
    """spread: of both intervals, as a share"""
    subject = Subject(f"{preset}.gguf", preset, preset, SIZES[preset], 4.0)
    rate = Measurement(
        what="decode_rate", value=speed, low=speed * (1 - spread), high=speed * (1 + spread), subject=subject
    )
    ratio = 1 + lost
    loss = Measurement(
        what="perplexity_ratio", value=ratio, low=1 + lost * (1 - spread), high=1 + lost * (1 + spread), subject=subject
    )
    return Tried(preset, preset, 1_000_000 * subject.size_bytes, rate, loss)


def following(options: Sequence[Option], *done: Tried, errors: Mapping[str, float] = ERRORS) -> str | None:
    sized = [replace(option, size=Prediction(1e6 * SIZES[option.name], 0, 0, "")) for option in options]
    named = next(option for option in sized if option.name == "Q4_K_M")
    option = next_to_try(sized, named, done, WISHES, errors)
    return option and option.name


@pytest.mark.parametrize(
    ("speed", "lost", "spread", "verdict"),
    [
        (33, 0.015, 0.01, MET),
        (29, 0.015, 0.01, MISSED),
        (33, 0.025, 0.01, MISSED),
        (30.1, 0.015, 0.05, OPEN),
        (33, 0.0195, 0.1, OPEN),
        (30.1, 0.025, 0.05, MISSED),
    ],
)
def test_a_wish_is_met_where_the_worse_end_meets_it(speed: float, lost: float, spread: float, verdict: str) -> None:
    assert tried("Q4_K_M", speed, lost, spread).verdict(WISHES) == verdict


def test_the_prediction_names_the_first_file(options: list[Option]) -> None:
    assert following(options) == "Q4_K_M"


def test_what_was_measured_names_the_next(options: list[Option]) -> None:
    assert following(options, tried("Q4_K_M", 38, 0.025)) == "Q5_K_M"  # 0.006 by its error, and 31.7 tokens/s
    assert following(options, tried("Q5_K_M", 28, 0.001)) == "Q4_K_M"  # too slow: smaller, and 0.004 by its error
    assert following(options, tried("Q4_K_M", 38, 0.3)) is None  # a larger one loses too much as well, or is too slow
    assert following(options, tried("Q4_K_M", 29, 0.025)) is None  # neither a larger nor a smaller one can do both
    assert following(options, tried("Q5_K_M", 29, 0.005), tried("Q4_K_M", 35, 0.03)) is None


def test_a_speed_that_nobody_predicted_goes_with_the_bytes_of_a_token(options: list[Option]) -> None:
    unknown = [replace(option, speed=Prediction(None, None, None, "not measured")) for option in options]
    assert following(unknown, tried("Q5_K_M", 28, 0.001)) == "Q4_K_M"


def test_the_nearest_is_named_and_what_would_have_to_give() -> None:
    slow, lossy = tried("Q5_K_M", 26.4, 0.012), tried("Q4_K_M", 35, 0.0311)
    assert nearest([slow, lossy], WISHES) == slow
    proof = Proof(WISHES, MISSED, slow, ROOT, (slow, lossy), 2, 60.0)
    assert list(what_would_have_to_give(proof)) == [
        "With --min-speed 26, Q5_K_M meets them.",
        "With --max-loss 3.2%, Q4_K_M meets them.",
    ]
    document = proof_document(proof)
    assert [each["tokens_per_second"]["wish"] for each in document["tried"]] == [MISSED, MET]
    assert nearest([lossy, tried("Q8_0", 31, 0.001), tried("Q5_K_M", 33, 0.01)], WISHES).preset == "Q5_K_M"
