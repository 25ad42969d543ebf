"""Encoding with calibration data is never worse than without on what was held back, and never fails for lack of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from thriftbit.formats import FORMATS
from thriftbit.formats.format import FloatArray
from thriftbit.library.artefacts import MadeOf
from thriftbit.quantization.calibrated import encode_calibrated
from thriftbit.quantization.calibration_data import Calibration, finish_calibration, save_part
from thriftbit.quantization.moments import packed, roots

N, WIDTH, NAME = 32, 256, "blk.0.ffn_up.weight"
Q4_0 = FORMATS["Q4_0"]


def _tokens(seed: int, mixing_seed: int, count: int) -> tuple[FloatArray, FloatArray]:
    random, mixing = np.random.default_rng(seed), np.random.default_rng(mixing_seed)
    inputs = random.standard_normal((count, 16)) @ mixing.standard_normal((16, WIDTH))
    gradients = random.standard_normal((count, 4)) @ mixing.standard_normal((4, N))
    noise = 0.3 * random.standard_normal((count, WIDTH)), 0.3 * random.standard_normal((count, N))
    return np.asarray(inputs + noise[0], np.float32), np.asarray(gradients + noise[1], np.float32)


def _calibration(folder: Path, held_back_mixing: int = 1, tokens: int = 600, spoil: float = 0.0) -> Calibration:
    inputs, gradients = _tokens(2, 1, tokens)
    held_inputs, held_gradients = _tokens(3, held_back_mixing, 64)
    columns = inputs.T @ inputs / tokens
    columns[3, 4] += spoil
    columns[4, 3] += spoil
    made = MadeOf("calibration", "a model", {})
    diagonal = columns.diagonal().copy()
    save_part(
        folder,
        made,
        f"{NAME}.inputs",
        importance=np.square(inputs).mean(axis=0),
        diagonal=diagonal,
        inputs=_unit(held_inputs),
        **{f"{key}0": part for key, part in packed(columns / np.outer(roots(diagonal), roots(diagonal))).items()},
    )
    rows = gradients.T @ gradients / tokens
    save_part(
        folder,
        made,
        NAME,
        tokens=tokens,
        columns_scale=1.0,
        rows_scale=1.0,
        diagonal=rows.diagonal(),
        gradients=_unit(held_gradients),
        check_size=1.0,
        **{f"{key}0": part for key, part in packed(rows / np.sqrt(np.outer(np.diag(rows), np.diag(rows)))).items()},
    )
    return finish_calibration(folder, made, {NAME: f"{NAME}.inputs"}, [], [], np.zeros((8, tokens), np.int64))


def _unit(vectors: FloatArray) -> FloatArray:
    lengths: FloatArray = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors * np.sqrt(vectors.shape[1]) / lengths


def _rows() -> FloatArray:
    return np.random.default_rng(0).standard_normal((N, WIDTH)).astype(np.float32)


def test_it_pays_where_text_is_alike(tmp_path: Path) -> None:
    outcome = encode_calibrated(_rows(), Q4_0, _calibration(tmp_path), NAME)
    assert outcome.note == ""
    assert outcome.cost is not None and outcome.plain_cost is not None
    assert outcome.cost < 0.5 * outcome.plain_cost


def test_it_falls_back_where_held_back_text_is_another(tmp_path: Path) -> None:
    calibration = _calibration(tmp_path, held_back_mixing=9)
    outcome = encode_calibrated(_rows(), Q4_0, calibration, NAME)
    assert outcome.note
    np.testing.assert_array_equal(outcome.blocks, Q4_0.encode(_rows(), calibration.importance(NAME)))


def test_damaged_moments_fall_back(tmp_path: Path) -> None:
    outcome = encode_calibrated(_rows(), Q4_0, _calibration(tmp_path, spoil=np.nan), NAME)
    assert "not finite" in outcome.note
    assert np.isfinite(Q4_0.decode(outcome.blocks)).all()


@pytest.mark.parametrize("format", ["F16", "Q4_0"])
def test_a_tensor_without_data_is_encoded_as_without(format: str, tmp_path: Path) -> None:
    outcome = encode_calibrated(_rows(), FORMATS[format], _calibration(tmp_path), "blk.7.ffn_up.weight")
    assert outcome.note
    np.testing.assert_array_equal(outcome.blocks, FORMATS[format].encode(_rows()))
