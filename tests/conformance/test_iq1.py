"""IQ1_S and IQ1_M: rows and importance that their search stumbles over."""

from __future__ import annotations

import numpy as np
import pytest
from peers.weights import importance, weights

from thriftbit import _native as native
from thriftbit.formats import FORMATS
from thriftbit.formats.format import FloatArray

from .specification import encoder_of
from .specification.iq1 import DIGITS, nearest_codewords

one_bit = pytest.mark.parametrize("name", ["IQ1_S", "IQ1_M"])


@one_bit
def test_importance_of_zero_in_places_changes_no_bytes_between_kernel_and_specification(name: str) -> None:
    """Where weights do not matter many codewords are equally good; a rule says which is taken."""
    format, rows, column_weights = FORMATS[name], weights("gaussian", 2, 512), importance(512)
    column_weights[::3] = 0
    column_weights[64:96] = 0  # a whole sub-block
    column_weights[100:108] = 0  # a whole group
    column_weights[256 + 3] = 0
    shares = np.broadcast_to(np.ldexp(column_weights, -np.frexp(column_weights.max())[1]), rows.shape)
    expected = encoder_of(format)(rows, shares).reshape(2, -1)
    for instruction_set in native.instruction_sets():
        native.use_instruction_set(instruction_set)
        np.testing.assert_array_equal(format.encode(rows, column_weights), expected, instruction_set)


@one_bit
def test_sub_blocks_without_importance_do_not_choose_the_scale(name: str) -> None:
    rows, column_weights = weights("gaussian", 8, 256), np.ones(256, np.float32)
    column_weights[:32] = 0
    louder = rows.copy()
    louder[:, :32] *= 50
    quiet, loud = (FORMATS[name].decode(FORMATS[name].encode(x, column_weights)) for x in (rows, louder))
    np.testing.assert_array_equal(quiet[:, 32:], loud[:, 32:])


@one_bit
@pytest.mark.parametrize("length", [32, 256])
def test_stretches_of_one_value_keep_nearly_all(name: str, length: int) -> None:
    """All digits one and all digits zero fit such a stretch equally well, but the latter needs a scale nine times as
    large, which no other sub-block could use."""
    values = weights("gaussian", 8, 1024 // length, seed=2)
    rows = np.repeat(values, length, axis=1)
    lost = (FORMATS[name].decode(FORMATS[name].encode(rows)) - rows) ** 2
    assert lost.sum() < 0.01 * (rows**2).sum()


def test_nearest_codewords_are_the_nearest() -> None:
    costs: FloatArray = np.random.default_rng(1).random((3, 2, 8, 20), np.float32)
    costs -= costs.min(axis=0)
    added, codes = nearest_codewords(costs)
    for group in range(2):
        for column in range(20):
            of_all = costs[DIGITS, group, np.arange(8), column].astype(np.float64).sum(axis=1)
            assert codes[group, column] == of_all.argmin()
            assert added[group, column] == pytest.approx(of_all.min(), rel=1e-6)
