"""A plain encoder for every format with a grid, for machines on which no kernel was compiled.

The kernels in `native/` search much longer, and lose less. Here each sub-block starts with a scale that puts its
outermost weight on an outermost value of the grid, or somewhat beyond. Then the weights are rounded, the scale is
fitted to the result by least squares, and the weights are rounded once more. The best of a few starts is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.formats.grid import Grid, Numbers, ScaleKind, nearest_of
from thriftbit.formats.packing import half

WITH_OFFSETS = (ScaleKind.HALF_AND_HALF, ScaleKind.TWO_MULTIPLES)
SHARES = (1.0, 0.8, 0.6)
"""Which share of the outermost weight is put on the outermost value; the rest of it is cut off."""

FITS = 3


def plain_encoder(grid: Grid, block_size: int) -> Callable[[FloatArray, FloatArray | None], ByteArray]:
    """Return an encoder as `Format.encode_blocks` describes it, for blocks of `block_size` weights."""
    shape = -1, grid.sub_blocks, block_size // grid.sub_blocks

    def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
        blocks = x.reshape(shape)
        weights = np.ones_like(blocks) if importance is None else importance.reshape(shape)
        scales, offsets = _fitted(blocks, weights, grid)
        no_codes = np.zeros((len(blocks), block_size), np.uint8)
        numbers = grid.with_scales_and_offsets(_steps(scales, offsets, grid), scales, offsets, no_codes)
        numbers.codes = _codes(blocks, *grid.scales_and_offsets(numbers), grid).reshape(no_codes.shape)
        return grid.pack(numbers)

    return encode


def _fitted(blocks: FloatArray, weights: FloatArray, grid: Grid) -> tuple[FloatArray, FloatArray]:
    """Return scales and offsets, (blocks, sub-blocks) each, before they are rounded as the format stores them."""
    best_scales, best_offsets = np.zeros(blocks.shape[:2], np.float32), np.zeros(blocks.shape[:2], np.float32)
    least = np.full(best_scales.shape, np.inf, np.float32)
    for scales, offsets in _starts(blocks, grid):
        for _ in range(FITS):
            if grid.kind == ScaleKind.TABLE:
                scales = nearest_of(grid.scale_table, scales)
            values = grid.values[_codes(blocks, scales, offsets, grid)]
            left = (weights * (blocks - scales[:, :, None] * values - offsets[:, :, None]) ** 2).sum(axis=2)
            better = left < least
            least, best_scales = np.minimum(left, least), np.where(better, scales, best_scales)
            best_offsets = np.where(better, offsets, best_offsets)
            scales, offsets = _least_squares(blocks, weights, values, grid)
    return best_scales, best_offsets


def _starts(blocks: FloatArray, grid: Grid) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield scales and offsets that put the outermost weights on the outermost values, or beyond them."""
    if grid.kind in WITH_OFFSETS:
        lowest, highest = blocks.min(axis=2), blocks.max(axis=2)
        for share in SHARES:
            offsets = _possible(lowest * np.float32(share), grid)
            yield (highest * np.float32(share) - offsets) / (grid.values[-1] - grid.values[0]), offsets
    else:
        extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2)[:, :, None], axis=2)[:, :, 0]
        for share in SHARES:
            for end in (grid.values[0], grid.values[-1]):
                start = extreme * np.float32(share) / end
                yield np.abs(start) if grid.kind == ScaleKind.TABLE else start, np.zeros_like(start)


def _least_squares(
    blocks: FloatArray, weights: FloatArray, values: FloatArray, grid: Grid
) -> tuple[FloatArray, FloatArray]:
    """Return the scales and offsets that fit the blocks best, if their weights become these values of the grid."""
    offsets = np.zeros(blocks.shape[:2], np.float32)
    if grid.kind in WITH_OFFSETS:
        total = weights.sum(axis=2)
        mean, mean_value = ((weights * x).sum(axis=2) * inverse(total) for x in (blocks, values))
        centred = values - mean_value[:, :, None]
        slope = (weights * centred * blocks).sum(axis=2) * inverse((weights * centred * values).sum(axis=2))
        offsets = _possible(mean - slope * mean_value, grid)
    rest = blocks - offsets[:, :, None]
    return (weights * rest * values).sum(axis=2) * inverse((weights * values * values).sum(axis=2)), offsets


def _possible(offsets: FloatArray, grid: Grid) -> FloatArray:
    """Super-blocks store what is taken away, which cannot be negative."""
    return np.minimum(offsets, np.float32(0)) if grid.kind == ScaleKind.TWO_MULTIPLES else offsets


def _steps(scales: FloatArray, offsets: FloatArray, grid: Grid) -> Numbers:
    """Return numbers with d and d_min, so that the largest scale and offset of a block are the largest multiples."""
    extreme = np.take_along_axis(scales, np.abs(scales).argmax(axis=1)[:, None], axis=1)
    d = half(extreme / np.float32(grid.lowest if grid.lowest < 0 else grid.highest))
    d_min = half(-offsets.min(axis=1, keepdims=True) / np.float32(max(grid.highest_min, 1)))
    return Numbers(d, d_min, np.ones_like(scales), np.ones_like(scales), np.zeros(0, np.uint8))


def _codes(blocks: FloatArray, scales: FloatArray, offsets: FloatArray, grid: Grid) -> ByteArray:
    wanted = (blocks - offsets[:, :, None]) * inverse(scales)[:, :, None]
    return np.searchsorted(grid.values, nearest_of(grid.values, wanted)).astype(np.uint8)


def inverse(values: FloatArray) -> FloatArray:
    """Return 1 / values, and 0 for values below 1e-30."""
    usable = np.abs(values) > np.float32(1e-30)
    inverted: FloatArray = np.where(usable, np.float32(1) / np.where(usable, values, np.float32(1)), np.float32(0))
    return inverted
