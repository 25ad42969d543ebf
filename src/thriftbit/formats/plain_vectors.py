"""A plain encoder for every codebook format, for machines on which no kernel was compiled.

As in `plain.py`: each sub-block starts with a few scales, takes the nearest entries of the codebook, and fits its scale
to them by least squares. The best start is kept. Then the scales become multiples of one d, and the entries are chosen
again. "Nearest" is exact: all entries are compared, by matrix products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from thriftbit.formats.format import ByteArray, FloatArray
from thriftbit.formats.grid import nearest_of
from thriftbit.formats.packing import half
from thriftbit.formats.plain import inverse
from thriftbit.formats.vector_grid import SIGN_GROUP, Signs, VectorGrid, VectorNumbers

SHARES = (0.9, 0.6, 0.4)
"""Which share of the outermost weight the largest number of the codebook starts at."""

FITS = 2
GROUPS_AT_ONCE = 2048  # bounds the memory of the comparison with all entries
Booleans = NDArray[np.bool_]
Entries = NDArray[np.uint16]
Encoder = Callable[[FloatArray, FloatArray | None], ByteArray]


def plain_vector_encoder(grid: VectorGrid, block_size: int) -> Encoder:
    """Return an encoder as `Format.encode_blocks` describes it, for blocks of `block_size` weights."""

    def encode(x: FloatArray, importance: FloatArray | None) -> ByteArray:
        blocks = x.reshape(-1, block_size)
        weights = np.ones_like(blocks) if importance is None else importance.reshape(-1, block_size)
        alone = _fitted(blocks, weights, grid)
        d = half(alone.max(axis=1, keepdims=True) / grid.scales[-1])
        scales = np.searchsorted(grid.scales, nearest_of(grid.scales, alone * inverse(d))).astype(np.uint8)
        return grid.pack(_chosen(blocks, weights, d, scales, grid))

    return encode


def _fitted(blocks: FloatArray, weights: FloatArray, grid: VectorGrid) -> FloatArray:
    """Return float32 (blocks, sub-blocks): the scale of each sub-block, before it becomes a multiple of d."""
    shape = len(blocks), grid.sub_blocks, -1
    largest = np.abs(blocks).reshape(shape).max(axis=2) / grid.vectors.max()
    one, none = np.ones((len(blocks), 1), np.float32), np.zeros((len(blocks), grid.sub_blocks), np.uint8)
    best: FloatArray = np.zeros_like(largest)
    least = np.full(largest.shape, np.inf, np.float32)
    unit = replace(grid, scales=np.ones(1, np.float32))  # its weights are the levels of any scale
    for share in SHARES:
        scales = largest * np.float32(share)
        for _ in range(FITS):
            scaled = (blocks.reshape(shape) * inverse(scales)[:, :, None]).reshape(blocks.shape)
            levels = unit.decode(_chosen(scaled, weights, one, none, unit)).reshape(shape)
            missed = blocks.reshape(shape) - scales[:, :, None] * levels
            left = (weights.reshape(shape) * missed**2).sum(axis=2)
            best, least = np.where(left < least, scales, best), np.minimum(left, least)
            pull, size = ((weights * blocks).reshape(shape) * levels, weights.reshape(shape) * levels**2)
            scales = np.maximum(pull.sum(axis=2) * inverse(size.sum(axis=2)), np.float32(0))
    return best


def _chosen(
    blocks: FloatArray, weights: FloatArray, d: FloatArray, scales: ByteArray, grid: VectorGrid
) -> VectorNumbers:
    """Return numbers with the nearest entries, shifts and signs that can be stored, for given scales."""
    sub_block = blocks.shape[1] // grid.sub_blocks
    levels = blocks * np.repeat(inverse(d * grid.scales[scales]), sub_block, axis=1)
    signs = np.zeros(blocks.shape, np.bool_) if grid.signs == Signs.NONE else levels < 0
    sizes = levels if grid.signs == Signs.NONE else np.abs(levels)
    if grid.signs == Signs.EVEN:
        signs, sizes = _with_even_signs(signs, sizes, weights)
    if not grid.shift_blocks:
        vectors, _ = _nearest_entries(sizes, weights, grid)
        return VectorNumbers(d, scales, vectors, signs, np.zeros((len(blocks), 0), np.uint8))
    tries = [_nearest_entries(sizes - shift, weights, grid) for shift in grid.shifts]
    errors = np.stack([error.reshape(len(blocks), grid.shift_blocks, -1).sum(axis=2) for _, error in tries])
    shifts = errors.argmin(axis=0).astype(np.uint8)
    of_groups = np.repeat(shifts, tries[0][0].shape[1] // grid.shift_blocks, axis=1)
    vectors = np.take_along_axis(np.stack([found for found, _ in tries]), of_groups[None].astype(np.intp), axis=0)[0]
    return VectorNumbers(d, scales, vectors, signs, shifts)


def _with_even_signs(signs: Booleans, sizes: FloatArray, weights: FloatArray) -> tuple[Booleans, FloatArray]:
    """Where a group has an odd number of minus signs, turn over the sign of the weight that this harms least."""
    shape = -1, SIGN_GROUP
    harm = (weights * sizes * sizes).reshape(shape)
    signs, sizes = signs.reshape(shape).copy(), sizes.reshape(shape).copy()
    odd = np.flatnonzero(signs.sum(axis=1) % 2)
    least = harm[odd].argmin(axis=1)
    signs[odd, least] ^= True
    sizes[odd, least] *= np.float32(-1)
    return signs.reshape(len(weights), -1), sizes.reshape(len(weights), -1)


def _nearest_entries(levels: FloatArray, weights: FloatArray, grid: VectorGrid) -> tuple[Entries, FloatArray]:
    """Return the nearest entry of each group, uint16 (blocks, groups), and its error."""
    y, w = levels.reshape(-1, grid.group), weights.reshape(-1, grid.group)
    found, error = np.empty(len(y), np.uint16), np.empty(len(y), np.float32)
    for start in range(0, len(y), GROUPS_AT_ONCE):
        piece = slice(start, start + GROUPS_AT_ONCE)
        distances = w[piece] @ (grid.vectors**2).T - (2 * w[piece] * y[piece]) @ grid.vectors.T
        found[piece], error[piece] = distances.argmin(axis=1), distances.min(axis=1)
    error += (w * y * y).sum(axis=1)
    return found.reshape(len(levels), -1), error.reshape(len(levels), -1)
