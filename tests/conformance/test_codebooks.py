"""The codebooks are ggml's, and blocks that use them are read and written as ggml reads them."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from thriftbit.formats import iq1_m, iq1_s, iq2_s, iq2_xs, iq2_xxs, iq3_s, iq3_xxs
from thriftbit.formats.codebooks import codebook
from thriftbit.formats.vector_grid import VectorGrid

GRIDS = {
    "IQ1_S": iq1_s.GRID,
    "IQ1_M": iq1_m.GRID,
    "IQ2_XXS": iq2_xxs.GRID,
    "IQ2_XS": iq2_xs.GRID,
    "IQ2_S": iq2_s.GRID,
    "IQ3_XXS": iq3_xxs.GRID,
    "IQ3_S": iq3_s.GRID,
}


@pytest.mark.parametrize("name", ["IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"])
def test_codebooks_are_those_of_gguf(name: str) -> None:
    theirs = getattr(gguf.quants, name)
    theirs.init_grid()
    ours = codebook(name.lower())
    np.testing.assert_array_equal(ours.values, np.array(theirs.grid_map, np.float32))
    np.testing.assert_array_equal(ours.vectors, theirs.grid.reshape(theirs.grid_shape))


@pytest.mark.parametrize(("name", "grid"), GRIDS.items())
def test_blocks_of_random_bytes_are_decoded_as_ggml_does(name: str, grid: VectorGrid) -> None:
    kind = gguf.GGMLQuantizationType[name]
    blocks = np.random.default_rng(3).integers(0, 256, (300, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8)
    blocks[:, -1 if name == "IQ1_M" else 1] &= 0x3B  # d is finite and not negative
    numbers = grid.unpack(blocks)
    expected = gguf.quants.dequantize(blocks, kind)
    np.testing.assert_array_equal(grid.decode(numbers).view(np.uint32), expected.view(np.uint32))
    np.testing.assert_array_equal(grid.pack(numbers), blocks)
