"""Rounding a whole matrix in a codebook format: the steps that `rounding.py` takes in turns.

The problem: a code stands for several weights, so weights cannot be rounded one after the other. The choice: eight
columns form a unit, which holds one vector of the codebook or two, with their signs. A unit is chosen at once, in the
metric that its eight weights have together: the unit's own block of the curvature's factors when errors are fed back,
its block of the curvature when it moves downhill. The search goes through the whole codebook, or, in a large one,
through the entries near what is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thriftbit.formats import Format
from thriftbit.formats.format import ByteArray, FloatArray, _native
from thriftbit.formats.vector_grid import SIGN_GROUP, VectorGrid, VectorNumbers
from thriftbit.quantization.curvature import Curvature, factored

PIECE = 64  # columns between two matrix products
REACH = 2  # how far from the present scale others are tried, in entries of the table
LANES = 16  # the kernels read this many entries of a codebook at a time
MANY = 1024  # entries from which a codebook is not searched as a whole
NEAR = 64  # entries that are searched instead


@dataclass
class VectorState:
    """A matrix during rounding.

    weights: (width, n), transposed. d: (n, blocks of a row). scales: (n, sub-blocks of a row). vectors: (n, groups of a
    row). signs: uint8 (n, width). shifts: uint8 (n, units of a row).
    """

    format: Format
    grid: VectorGrid
    curvature: Curvature
    weights: FloatArray
    d: FloatArray
    scales: ByteArray
    vectors: NDArray[np.uint16]
    signs: ByteArray
    shifts: ByteArray

    @classmethod
    def of(cls, weights: FloatArray, format: Format, curvature: Curvature, blocks: ByteArray) -> VectorState:
        assert isinstance(format.grid, VectorGrid)
        grid, (n, width) = format.grid, weights.shape
        numbers = grid.unpack(blocks.reshape(-1, format.block_bytes))
        units = width // SIGN_GROUP
        shifts = np.zeros((n, units), np.uint8)
        if grid.shift_blocks:
            shifts = np.repeat(
                numbers.shifts.reshape(n, -1), format.block_size // SIGN_GROUP // grid.shift_blocks, axis=1
            )
        return cls(
            format,
            grid,
            curvature,
            np.ascontiguousarray(weights.T, dtype=np.float32),
            numbers.d.reshape(n, -1).copy(),
            numbers.scales.reshape(n, -1).copy(),
            numbers.vectors.reshape(n, -1).copy(),
            numbers.signs.reshape(n, -1).astype(np.uint8),
            np.ascontiguousarray(shifts),
        )

    @property
    def sub_block(self) -> int:
        return self.format.block_size // self.grid.sub_blocks

    @cached_property
    def _codebook(self) -> dict[str, Any]:
        """Return what the kernels have to know of the format."""
        missing = -len(self.grid.vectors) % LANES
        filled = np.concatenate([self.grid.vectors, np.repeat(self.grid.vectors[:1], missing, axis=0)])
        return _neighbours(self.grid.vectors.tobytes(), self.grid.group) | {
            "codebook": np.ascontiguousarray(filled.T),
            "sign_kind": int(self.grid.signs),
            "shift_table": self.grid.shifts,
            "free_shifts": self.grid.shift_blocks * SIGN_GROUP == self.format.block_size,
        }

    def _scales(self) -> FloatArray:
        """Return float32 (n, units of a row)."""
        scales = np.repeat(self.d, self.grid.sub_blocks, axis=1) * self.grid.scales[self.scales]
        return np.repeat(scales, self.sub_block // SIGN_GROUP, axis=1)

    def _codes(self, units: NDArray[np.intp]) -> dict[str, Any]:
        """Return copies of what these units hold, contiguous."""
        return {
            "vectors": self.vectors.take(_members(units, SIGN_GROUP // self.grid.group), axis=1),
            "signs": self.signs.take(_members(units, SIGN_GROUP), axis=1),
            "shifts": self.shifts.take(units, axis=1),
        }

    def _keep(self, units: NDArray[np.intp], codes: dict[str, Any]) -> None:
        self.vectors[:, _members(units, SIGN_GROUP // self.grid.group)] = codes["vectors"]
        self.signs[:, _members(units, SIGN_GROUP)] = codes["signs"]
        self.shifts[:, units] = codes["shifts"]

    def feed_back(self) -> None:
        """Choose all codes again. Each unit compensates for the errors of the units before it. Units and rows that
        matter most come first."""
        assert _native is not None
        width, n = self.weights.shape
        matters = self.curvature.columns.diagonal().reshape(-1, SIGN_GROUP).sum(axis=1)
        units = np.argsort(matters, kind="stable")
        columns = _members(units, SIGN_GROUP)
        lower, pivots = factored(self.curvature.columns[np.ix_(columns, columns)], in_place=True)
        rows, by_row = np.arange(n), None
        if self.curvature.rows is not None:
            rows = np.argsort(self.curvature.rows.diagonal(), kind="stable")
            by_row = factored(self.curvature.rows[np.ix_(rows, rows)], in_place=True)[0]
        back = np.argsort(rows)
        scales = self._scales()
        errors = np.zeros((n, width), np.float32)
        for stop in range(width, 0, -PIECE):
            start = max(0, stop - PIECE)
            here = units[start // SIGN_GROUP : stop // SIGN_GROUP]
            own_errors = np.zeros((n, stop - start), np.float32)
            codes = {name: part[rows] for name, part in self._codes(here).items()}
            _native.vector_feed_back(
                weights=np.ascontiguousarray(self.weights[columns[start:stop]].T[rows]),
                carried=np.ascontiguousarray(errors[:, stop:] @ lower[stop:, start:stop]),
                factor=np.ascontiguousarray(lower[start:stop, start:stop]),
                pivots=pivots[start:stop],
                rows=by_row,
                scales=scales[np.ix_(rows, here)],
                errors=own_errors,
                **self._codebook,
                **codes,
            )
            errors[:, start:stop] = own_errors
            self._keep(here, {name: part[back] for name, part in codes.items()})

    def descend(self) -> None:
        """Move every unit once to where the cost is least."""
        assert _native is not None
        errors, scales = self._errors(), self._scales()
        for piece, gradient in self.curvature.gradients(errors, PIECE):
            units = np.arange(piece.start // SIGN_GROUP, piece.stop // SIGN_GROUP)
            columns = np.ascontiguousarray(self.curvature.columns[piece, piece])
            own_errors, codes = np.ascontiguousarray(errors[piece].T), self._codes(units)
            _native.vector_descend(
                gradient=np.ascontiguousarray(gradient.T),
                columns=columns,
                inverses=_inverses(columns),
                rows=self.curvature.rows,
                scales=np.ascontiguousarray(scales[:, units]),
                errors=own_errors,
                **self._codebook,
                **codes,
            )
            errors[piece] = own_errors.T
            self._keep(units, codes)

    def choose_scales(self) -> None:
        """Choose scale and codes of every sub-block once."""
        assert _native is not None
        errors = self._errors()
        for number, (piece, gradient) in enumerate(self.curvature.gradients(errors, self.sub_block)):
            units = np.arange(piece.start // SIGN_GROUP, piece.stop // SIGN_GROUP)
            columns = np.ascontiguousarray(self.curvature.columns[piece, piece])
            factor, pivots = factored(columns)
            own_errors, codes = np.ascontiguousarray(errors[piece].T), self._codes(units)
            chosen = self.scales[:, number].copy()
            _native.vector_choose_scales(
                gradient=np.ascontiguousarray(gradient.T),
                columns=columns,
                inverse=np.linalg.inv(columns.astype(np.float64)).astype(np.float32),
                factor=factor,
                pivots=pivots,
                rows=self.curvature.rows,
                d=self.d[:, number // self.grid.sub_blocks].copy(),
                scale_table=self.grid.scales,
                reach=REACH,
                chosen=chosen,
                errors=own_errors,
                **self._codebook,
                **codes,
            )
            errors[piece] = own_errors.T
            self.scales[:, number] = chosen
            self._keep(units, codes)

    def fit_steps(self) -> None:
        """Fit d of every block to its codes and scales."""
        assert _native is not None
        width, n = self.weights.shape
        errors = self._errors()
        levels = self.grid.decode(replace(self.numbers(), d=np.ones((self.d.size, 1), np.float32))).reshape(n, width)
        for number, (piece, gradient) in enumerate(self.curvature.gradients(errors, self.format.block_size)):
            steps, own_errors = self.d[:, number].copy(), np.ascontiguousarray(errors[piece].T)
            _native.fit_steps(
                gradient=np.ascontiguousarray(gradient.T),
                columns=np.ascontiguousarray(self.curvature.columns[piece, piece]),
                rows=self.curvature.rows,
                levels=np.ascontiguousarray(levels[:, piece]),
                mins=None,
                steps=steps,
                min_steps=np.zeros_like(steps),
                errors=own_errors,
            )
            self.d[:, number], errors[piece] = steps, own_errors.T

    def numbers(self) -> VectorNumbers:
        blocks = self.d.size
        shifts = self.shifts.reshape(blocks, -1)
        per_shift = shifts.shape[1] // max(self.grid.shift_blocks, 1)
        return VectorNumbers(
            self.d.reshape(blocks, 1),
            self.scales.reshape(blocks, -1),
            self.vectors.reshape(blocks, -1),
            self.signs.reshape(blocks, -1).astype(np.bool_),
            shifts[:, ::per_shift] if self.grid.shift_blocks else shifts[:, :0],
        )

    def blocks(self) -> ByteArray:
        return self.grid.pack(self.numbers()).reshape(self.weights.shape[1], -1)

    def _errors(self) -> FloatArray:
        width, n = self.weights.shape
        errors: FloatArray = self.weights - self.grid.decode(self.numbers()).reshape(n, width).T
        return np.ascontiguousarray(errors)


def _members(numbers: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """Return the places of all members of groups of `size`, given the groups' numbers."""
    members: NDArray[np.intp] = (numbers[:, None] * size + np.arange(size)).ravel()
    return members


def _inverses(columns: FloatArray) -> FloatArray:
    """Return float32 (units, SIGN_GROUP, SIGN_GROUP): the inverse of every unit's block on the diagonal."""
    units = np.arange(len(columns)).reshape(-1, SIGN_GROUP)
    blocks = columns[units[:, :, None], units[:, None, :]].astype(np.float64)
    inverses: FloatArray = np.linalg.inv(blocks).astype(np.float32)
    return inverses


@cache
def _neighbours(vectors: bytes, group: int) -> dict[str, Any]:
    """vectors: of a grid. Return for the kernels the entries near each vector of levels, or nothing: of a codebook that
    is small, or has other than three levels. See native/vector_rounding.hpp."""
    table = np.frombuffer(vectors, np.float32).reshape(-1, group)
    levels = np.unique(table)
    if len(table) < MANY or group != SIGN_GROUP or len(levels) != 3 or not (levels == levels.astype(np.int8)).all():
        return {
            "neighbours": np.zeros((0, 0, SIGN_GROUP, LANES), np.int8),
            "entries_near": np.zeros((0, 0), np.uint16),
            "between": np.zeros(0, np.float32),
        }
    patterns = levels[np.arange(3**SIGN_GROUP)[:, None] // 3 ** np.arange(SIGN_GROUP) % 3]
    distances = np.square(table).sum(axis=1) - 2 * patterns @ table.T
    near = np.argpartition(distances, NEAR, axis=1)[:, :NEAR].astype(np.uint16)
    numbers = table.astype(np.int8)[near].reshape(len(patterns), -1, LANES, SIGN_GROUP)
    return {
        "neighbours": np.ascontiguousarray(numbers.transpose(0, 1, 3, 2)),
        "entries_near": near,
        "between": (levels[:-1] + levels[1:]) / 2,
    }
