"""From sums of losses to predictions, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from thriftbit.formats import format_named
from thriftbit.formats.format import FloatArray
from thriftbit.formats.vector_grid import VectorGrid
from thriftbit.quantization import sensitivity_curvature
from thriftbit.quantization.curvature import Curvature
from thriftbit.quantization.sensitivity import (
    CALIBRATED,
    LEAST_SCATTER,
    PLAIN,
    Anchor,
    Loss,
    Sensitivities,
    Trust,
    offered_formats,
)
from thriftbit.quantization.sensitivity_curvature import PROBES, _Judge, losses_by_curvature
from thriftbit.sources.model import Model
from thriftbit.sources.tensor import Tensor


def known(**changes: object) -> Sensitivities:
    values: dict[str, object] = {
        "fingerprint": "f",
        "losses": {"a": {"Q4_K": 0.02, "Q8_0": 0.001}, "b": {"Q4_K": 0.01}},
        "savings": {"a": 0.25},
        "by_format": {"Q4_K": {"Q4_K": 1.0, "Q8_0": 0.8}},
        "anchors": (),
    }
    return Sensitivities(**{**values, **changes})  # type: ignore[arg-type]


def test_losses_add_up() -> None:
    formats = {"a": "Q4_K", "b": "Q4_K", "norm": "F32"}
    assert known().total(formats) == pytest.approx(0.03)
    assert known().total(formats, CALIBRATED) == pytest.approx(0.015)  # b has no curvature, and saves nothing
    assert known().total({"a": "Q8_0"}, CALIBRATED) == pytest.approx(0.001 * 0.25 * 0.8)


def test_whole_plans_correct_the_sum() -> None:
    anchors = tuple(Anchor(PLAIN, total, 1.3 * total**1.1, 0.05) for total in (0.001, 0.01, 0.1))
    trust = Trust.of(anchors, PLAIN)
    assert trust.slope == pytest.approx(1.1) and trust.predict(0.02).value == pytest.approx(1.3 * 0.02**1.1)
    assert trust.spread == pytest.approx(math.hypot(LEAST_SCATTER, 0.05))
    loss = trust.predict(0.02)
    assert loss.low < loss.value < loss.high
    assert trust.predict(trust.total_for(0.01)).high == pytest.approx(0.01)

    own = (*anchors, Anchor(CALIBRATED, 0.01, 0.9 * 0.01**1.1, 0.1))
    assert Trust.of(own, CALIBRATED).predict(0.05).value == pytest.approx(0.9 * 0.05**1.1)
    assert Trust.of(own, "tuned") == Trust.of(own, CALIBRATED)
    assert Trust.of(own, PLAIN) == trust


def test_anchors_that_disagree_widen_the_prediction() -> None:
    anchors = [Anchor(PLAIN, total, total * factor, 0.0) for total, factor in ((0.01, 1), (0.1, 2), (1.0, 1))]
    assert Trust.of(anchors, PLAIN).spread > 0.3
    assert Trust.of([], PLAIN).spread > 0.3


def test_perplexity_rises_by_the_exponential_at_most() -> None:
    assert Loss(0.01, 0.008, 0.012).perplexity_rise == pytest.approx(math.e**0.01 - 1)
    assert Trust().predict(0.0) == Loss(0.0, 0.0, 0.0)


def test_rows_decide_what_is_offered(model: Model) -> None:
    tensors = {tensor.name: tensor for tensor in model.tensors}
    names = [format.name for format in offered_formats(tensors["blk.0.attn_q.weight"])]
    assert {"Q2_K", "Q4_K", "Q4_0", "Q8_0", "F16"} <= {*names}
    assert offered_formats(tensors["output_norm.weight"]) == ()
    assert offered_formats(tensors["blk.0.ffn_gate_inp.weight"]) == ()  # a router stays as it is


@dataclass(frozen=True)
class _Calibrated:
    """The two things that losses need of a calibration"""

    known: Curvature

    def importance(self, name: str) -> FloatArray:
        return self.known.columns.diagonal().copy()

    def curvature(self, name: str) -> Curvature:
        return self.known


def test_some_rows_say_what_codebook_formats_lose(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    weights = random.standard_normal((96, 256), np.float32)
    x, g = (random.standard_normal((400, n), np.float32) * random.lognormal(0, 0.5, n) for n in (256, 96))
    calibration = _Calibrated(Curvature(np.float32(x.T @ x / 400), np.float32(g.T @ g / 400)))
    tensor = Tensor("blk.0.ffn_up.weight", weights.shape, "F32", lambda start, stop: weights[start:stop])
    whole = losses_by_curvature(tensor, calibration)  # type: ignore[arg-type]
    monkeypatch.setattr(sensitivity_curvature, "FEWEST_ROWS", 24)
    some = losses_by_curvature(tensor, calibration)  # type: ignore[arg-type]
    assert list(some) == list(whole)
    codebooks = [name for name in whole if isinstance(format_named(name).grid, VectorGrid)]
    assert codebooks
    for name, loss in whole.items():
        assert some[name] == pytest.approx(loss, rel=0.1 if name in codebooks else 1e-6)
    assert any(some[name] != whole[name] for name in codebooks)


def test_a_large_matrix_is_estimated_well() -> None:
    random = np.random.default_rng(0)
    width, n = 2 * PROBES, 48
    x = random.standard_normal((400, width), np.float32) * random.lognormal(0, 1, width).astype(np.float32)
    g = random.standard_normal((200, n), np.float32)
    curvature = Curvature(x.T @ x / 400, g.T @ g / 200)
    judge = _Judge.of(curvature)
    assert judge.columns is not None
    weights = random.standard_normal((n, width), np.float32)
    for name in ("Q2_K", "Q4_0", "Q8_0"):
        format = format_named(name)
        errors = weights - format.decode(format.encode(weights))
        assert judge.cost(errors) == pytest.approx(
            curvature.cost(errors), rel=0.1
        )  # of 48 rows; larger ones are closer


def test_unknown_outputs_count_as_even() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((100, 32), np.float32)
    columns = x.T @ x / 100
    errors = random.standard_normal((8, 32), np.float32)
    even = Curvature(columns, np.eye(8, dtype=np.float32) * np.trace(columns) / 8)
    assert _Judge.of(Curvature(columns)).cost(errors) == pytest.approx(even.cost(errors), rel=1e-5)
