"""Every registered format: our bytes are ggml's, the kernels are the numpy specification, and nobody encodes better."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray
from peers import llama_cpp
from peers.weights import KINDS, importance, weights

from thriftbit import _native as native
from thriftbit.containers.ggml_types import format_for
from thriftbit.errors import ThriftbitError, UsageError
from thriftbit.formats import FORMATS, Format, WeightError, format_named
from thriftbit.formats.__main__ import markdown_table
from thriftbit.formats.format import LARGEST_HALF

from .specification import encoder_of

WIDTH = 1024

every_format = pytest.mark.parametrize("format", FORMATS.values(), ids=list(FORMATS))
weighted = pytest.mark.parametrize("column_weights", [None, importance(WIDTH)], ids=["plain", "importance"])


def awkward_rows(format: Format) -> NDArray[np.float32]:
    """Return rows that encoders stumble over, and some that they do not."""
    large = min(LARGEST_HALF, format.largest)
    random = np.random.default_rng(7)
    ordinary = random.standard_normal(WIDTH).astype(np.float32) * np.float32(0.02)
    outlier, ternary = ordinary.copy(), np.sign(ordinary) * (np.abs(ordinary) > 0.01) * np.float32(0.5)
    outlier[[3, 700]] = 9, -30
    rows = [
        ordinary,
        np.zeros(WIDTH),
        outlier,
        ternary,
        np.full(WIDTH, 0.25),
        np.full(WIDTH, -0.25),
        np.abs(ordinary),
        -np.abs(ordinary),
        ordinary * 1e-9,  # below half precision
        ordinary * 1e-39,  # subnormal
        np.where(random.random(WIDTH) < 0.03, ordinary, 0),
        np.round(ordinary * 100) / 64,  # ties
        np.linspace(-large, large, WIDTH),
        np.repeat(ordinary[::32], 32),  # every block constant
        random.standard_t(2, WIDTH) * 0.01,
    ]
    return np.ascontiguousarray(rows, np.float32)


@pytest.fixture
def every_instruction_set() -> Iterator[list[str]]:
    sets = native.instruction_sets()
    yield sets
    native.use_instruction_set(sets[-1])


def specified(
    format: Format, rows: NDArray[np.float32], column_weights: NDArray[np.float32] | None
) -> NDArray[np.uint8]:
    """Return what the readable encoder gives."""
    shares = None
    if column_weights is not None:
        exponent = np.frexp(column_weights.max())[1]
        shares = np.broadcast_to(np.ldexp(column_weights, -(exponent + exponent % 2)), rows.shape)
    return encoder_of(format)(rows, shares).reshape(len(rows), -1)


@every_format
@weighted
def test_kernels_give_the_bytes_of_the_specification(
    format: Format, column_weights: NDArray[np.float32] | None, every_instruction_set: list[str]
) -> None:
    rows = np.concatenate([awkward_rows(format), weights("gaussian", 5), weights("heavy-tailed", 5)])
    expected = specified(format, rows, column_weights)
    for instruction_set in every_instruction_set:
        native.use_instruction_set(instruction_set)
        for threads in (1, 3):
            np.testing.assert_array_equal(format.encode(rows, column_weights, threads), expected, instruction_set)


@every_format
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (3, 1), (2, 7), (7, 5)], ids=str)
def test_any_number_of_blocks(format: Format, shape: tuple[int, int]) -> None:
    rows = weights("heavy-tailed", shape[0], shape[1] * format.block_size, seed=3)
    column_weights = importance(rows.shape[1])
    for given in (None, column_weights):
        np.testing.assert_array_equal(format.encode(rows, given, threads=2), specified(format, rows, given))
    assert format.encode(rows).shape == (shape[0], format.row_bytes(rows.shape[1]))


@every_format
@weighted
def test_the_plain_encoder_loses_little_more(format: Format, column_weights: NDArray[np.float32] | None) -> None:
    """The encoder of machines without compiled kernels: simple, and never far off."""
    rows = np.concatenate([weights("gaussian", 16), weights("heavy-tailed", 16), awkward_rows(format)])
    shares = None if column_weights is None else np.broadcast_to(column_weights, rows.shape)
    assert format.encode_blocks is not None
    plain, searched = (
        _error_of_rows(format.decode(blocks.reshape(len(rows), -1)), rows, column_weights)
        for blocks in (format.encode_blocks(rows, shares), format.encode(rows, column_weights))
    )
    assert np.isfinite(plain).all()
    ratios = (plain[:32] + 1e-30) / (searched[:32] + 1e-30)
    assert np.exp(np.log(ratios).mean()) < MOST_THAT_PLAIN_LOSES


def _error_of_rows(
    decoded: NDArray[np.float32], rows: NDArray[np.float32], column_weights: NDArray[np.float32] | None
) -> NDArray[np.float64]:
    squares = (decoded.astype(np.float64) - rows) ** 2
    return (squares if column_weights is None else squares * column_weights).sum(axis=1)


@every_format
def test_decoding_is_ggml_s_bit_for_bit(format: Format) -> None:
    anything = np.random.default_rng(3).integers(0, 256, (64, format.row_bytes(WIDTH)), np.uint8)
    for blocks in (format.encode(awkward_rows(format)), llama_cpp.encode(awkward_rows(format), format), anything):
        with np.errstate(over="ignore", invalid="ignore"):  # random scales may be infinite
            expected, ours = decoded_by_ggml(format, blocks), format.decode(blocks)
        number = ~np.isnan(expected)
        np.testing.assert_array_equal(ours.view(np.uint32)[number], expected.view(np.uint32)[number])
        assert np.isnan(ours[~number]).all()


def decoded_by_ggml(format: Format, blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return as the gguf package decodes, or ggml's library where the package cannot."""
    try:
        return gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[format.name])
    except (KeyError, NotImplementedError):
        return llama_cpp.decode(blocks, format)


@every_format
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
def test_weights_that_cannot_be_stored_are_refused(format: Format, value: float) -> None:
    if value < format.largest:
        return
    rows = weights("gaussian", 40)
    rows[33, 1000] = value
    with pytest.raises(WeightError, match="row 33: weight 1000 is ") as refused:
        format.encode(rows, threads=2)
    assert (refused.value.row, refused.value.column) == (33, 1000)


@every_format
@weighted
@pytest.mark.parametrize("shape", ["one large weight", "large weights"])
def test_the_largest_weights_lose_no_more_than_others(
    format: Format, column_weights: NDArray[np.float32] | None, shape: str
) -> None:
    """A format holds what its scales can hold, up to the largest weight that it promises."""
    rows = weights("gaussian", 16, WIDTH, seed=5)
    rows *= np.float32(0.999 * min(format.largest, 1e30)) / np.abs(rows).max()
    if shape == "one large weight":
        rows[:, np.arange(WIDTH) % 300 != 17] *= np.float32(1e-3)
    smaller = rows * np.float32(2.0**-12)

    def share_lost(x: NDArray[np.float32]) -> float:
        decoded = format.decode(format.encode(x, column_weights)).astype(np.float64)
        return float(((decoded - x) ** 2).sum() / (x.astype(np.float64) ** 2).sum())

    assert share_lost(rows) <= 1.05 * share_lost(smaller) + 1e-12
    np.testing.assert_array_equal(format.encode(rows, column_weights)[:4], specified(format, rows[:4], column_weights))


@every_format
def test_columns_without_importance_do_no_harm(format: Format) -> None:
    rows, column_weights = weights("gaussian", 4), importance(WIDTH)
    column_weights[:512:3] = 0
    column_weights[512:] = 0
    decoded = format.decode(format.encode(rows, column_weights))
    assert np.isfinite(decoded).all()
    plain = format.decode(format.encode(rows))[:, 512:]
    loss = ((decoded[:, 512:] - rows[:, 512:]) ** 2).sum()
    assert loss <= 1.01 * ((plain - rows[:, 512:]) ** 2).sum()
    np.testing.assert_array_equal(format.encode(rows, np.zeros(WIDTH, np.float32)), format.encode(rows))


MOST_THAT_PLAIN_LOSES = 1.5
"""Times the error of the kernel's search."""

NOTHING_TO_GAIN = {"F32", "F16", "BF16"}
"""They only round. So does Q1_0 without importance: the mean is the best scale."""


@every_format
@weighted
@pytest.mark.parametrize("kind", [*KINDS, "full of ties"])
def test_no_encoder_loses_less(format: Format, column_weights: NDArray[np.float32] | None, kind: str) -> None:
    rows = full_of_ties() if kind == "full of ties" else weights(kind, 128, WIDTH, seed=11)
    factor = 1.0 if column_weights is None else column_weights
    size = max(format.block_size, 32)
    ours, theirs = (
        (factor * (format.decode(blocks).astype(np.float64) - rows) ** 2).reshape(-1, size).sum(axis=1)
        for blocks in (format.encode(rows, column_weights), llama_cpp.encode(rows, format, column_weights))
    )
    assert (ours <= theirs * (1 + 1e-6)).all(), "in every single block"
    if format.name in NOTHING_TO_GAIN or (format.name == "Q1_0" and column_weights is None):
        np.testing.assert_array_equal(ours, theirs)
    else:
        assert ours.sum() < 0.99 * theirs.sum()


def full_of_ties() -> NDArray[np.float32]:
    """Return rows on a coarse grid: several weights are the largest, of
    either sign, and many lie between two levels."""
    return np.round(weights("gaussian", 128, WIDTH, seed=13) * 500) / np.float32(512)


@every_format
def test_fallbacks_lead_to_a_format_for_any_width_that_is_a_multiple_of_32(format: Format) -> None:
    if format.block_size > 32:
        assert format.fallback is not None
        assert format_named(format.fallback).block_size <= 32
    else:
        assert format.fallback is None


def test_the_documented_table_is_the_registry_s() -> None:
    documented = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    assert markdown_table() in documented, "paste the output of `python -m thriftbit.formats` into docs/formats.md"


def test_every_type_that_gguf_decodes_is_decoded() -> None:
    decoded = 0
    for ggml_type, (size, size_bytes) in gguf.GGML_QUANT_SIZES.items():
        blocks = np.random.default_rng(0).integers(0, 60, (2, 3 * size_bytes), np.uint8)
        try:
            expected = gguf.quants.dequantize(blocks, ggml_type)
        except NotImplementedError:
            continue
        decoded += 1
        format = format_for(ggml_type)
        assert (format.name, format.block_size, format.block_bytes) == (ggml_type.name, size, size_bytes)
        np.testing.assert_array_equal(format.decode(blocks).view(np.uint32), expected.view(np.uint32))
        if not format.can_encode:
            with pytest.raises(ThriftbitError, match="can be read but not written"):
                format.encode(np.zeros((1, size), np.float32))
    assert decoded > 20


def test_types_that_nobody_decodes_are_named() -> None:
    format = format_for(gguf.GGMLQuantizationType.I64)
    assert not format.can_decode
    with pytest.raises(ThriftbitError, match="I64 can be run here, but not decoded"):
        format.decode(np.zeros((1, 8), np.uint8))


def test_unknown_formats_are_answered_with_the_choices() -> None:
    assert format_named("q4_k") is FORMATS["Q4_K"]
    with pytest.raises(UsageError, match=r"no format 'Q9_K'; the formats are F32, .*Q4_K.*"):
        format_named("Q9_K")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.ones(31, np.float32), "does not fit rows of 32"),
        (np.full(32, -1, np.float32), "negative or non-finite"),
        (np.full(32, np.nan, np.float32), "negative or non-finite"),
    ],
)
def test_importance_is_checked(given: NDArray[np.float32], message: str) -> None:
    with pytest.raises(ThriftbitError, match=message):
        FORMATS["Q8_0"].encode(np.ones((2, 32), np.float32), given)


def test_rows_that_blocks_do_not_divide_are_refused() -> None:
    with pytest.raises(ThriftbitError, match="300 weights do not divide into the blocks of 256 that Q4_K needs"):
        FORMATS["Q4_K"].encode(np.zeros((2, 300), np.float32))
