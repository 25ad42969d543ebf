"""A format's numbers: bytes to numbers and back, and the same weights whichever way they are decoded."""

from __future__ import annotations

import numpy as np
import pytest

from thriftbit.formats import FORMATS
from thriftbit.formats.format import ByteArray
from thriftbit.formats.grid import Grid

GRIDS = {name: format.grid for name, format in FORMATS.items() if isinstance(format.grid, Grid)}


def test_every_format_with_codes_and_scales_of_its_own_has_a_grid() -> None:
    assert {name for name, format in FORMATS.items() if format.grid is None} == {"F32", "F16", "BF16"}


def _blocks(name: str) -> ByteArray:
    format = FORMATS[name]
    rows = np.random.default_rng(0).standard_t(4, (8, 512)).astype(np.float32)
    rows[0] = 0
    return format.encode(rows).reshape(-1, format.block_bytes)


@pytest.mark.parametrize("name", [name for name in GRIDS if name not in ("MXFP4", "NVFP4")])  # they have two zeros
def test_bytes_survive(name: str) -> None:
    blocks, grid = _blocks(name), GRIDS[name]
    np.testing.assert_array_equal(grid.pack(grid.unpack(blocks)), blocks)


@pytest.mark.parametrize("name", GRIDS)
def test_numbers_mean_what_the_format_decodes(name: str) -> None:
    blocks, grid = _blocks(name), GRIDS[name]
    np.testing.assert_array_equal(grid.decode(grid.unpack(blocks)), FORMATS[name].decode_blocks(blocks))


@pytest.mark.parametrize("name", GRIDS)
def test_scales_that_the_grid_gave_are_stored_without_loss(name: str) -> None:
    grid = GRIDS[name]
    numbers = grid.unpack(_blocks(name))
    again = grid.with_scales_and_offsets(numbers, *grid.scales_and_offsets(numbers), numbers.codes)
    stored = grid.unpack(grid.pack(again))
    np.testing.assert_array_equal(grid.decode(stored), grid.decode(numbers))
