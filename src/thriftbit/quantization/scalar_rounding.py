"""Rounding a whole matrix in a format with one code for each weight: the steps that `rounding.py` takes in turns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thriftbit.formats import Format
from thriftbit.formats.format import ByteArray, FloatArray, _native
from thriftbit.formats.grid import Grid, Numbers, ScaleKind
from thriftbit.quantization.curvature import Curvature, factored

PIECE = 64  # columns between two matrix products


@dataclass
class ScalarState:
    """A matrix during rounding, transposed so that each column of the matrix is contiguous in memory.

    weights, codes: (width, n). scales, offsets: (sub-blocks of a row, n).
    """

    format: Format
    grid: Grid
    curvature: Curvature
    weights: FloatArray
    numbers: Numbers
    scales: FloatArray
    offsets: FloatArray
    codes: ByteArray

    @classmethod
    def of(cls, weights: FloatArray, format: Format, curvature: Curvature, blocks: ByteArray) -> ScalarState:
        assert isinstance(format.grid, Grid)
        grid, n = format.grid, len(weights)
        numbers = grid.unpack(blocks.reshape(-1, format.block_bytes))
        scales, offsets = (part.reshape(n, -1) for part in grid.scales_and_offsets(numbers))
        return cls(
            format,
            grid,
            curvature,
            _turned(weights),
            numbers,
            _turned(scales),
            _turned(offsets),
            np.ascontiguousarray(numbers.codes.reshape(n, -1).T),
        )

    @property
    def sub_block(self) -> int:
        return self.format.block_size // self.grid.sub_blocks

    def feed_back(self) -> None:
        """Choose all codes again. Each compensates for the errors of the codes before it. Columns and rows that matter
        most come first."""
        assert _native is not None
        width, n = self.weights.shape
        columns = np.argsort(self.curvature.columns.diagonal(), kind="stable")
        lower = factored(self.curvature.columns[np.ix_(columns, columns)], in_place=True)[0]
        rows, by_row = np.arange(n), None
        if self.curvature.rows is not None:
            rows = np.argsort(self.curvature.rows.diagonal(), kind="stable")
            by_row = factored(self.curvature.rows[np.ix_(rows, rows)], in_place=True)[0]
        errors = np.zeros((width, n), np.float32)
        codes = np.zeros((width, n), np.uint8)
        for stop in range(width, 0, -PIECE):
            start = max(0, stop - PIECE)
            carried = np.ascontiguousarray(lower[stop:, start:stop].T @ errors[stop:])
            here = columns[start:stop]
            picked = np.ix_(here, rows)
            blocks = np.ix_(here // self.sub_block, rows)
            _native.feed_back(
                self.weights[picked],
                carried,
                np.ascontiguousarray(lower[start:stop, start:stop]),
                by_row,
                self.scales[blocks],
                self.offsets[blocks],
                self.grid.values,
                codes[start:stop],
                errors[start:stop],
            )
        self.codes[np.ix_(columns, rows)] = codes

    def descend(self) -> None:
        """Move every code once to where the cost is least."""
        assert _native is not None
        errors = self._errors()
        for piece, gradient in self.curvature.gradients(errors, PIECE):
            here = np.arange(piece.start, piece.stop) // self.sub_block
            _native.descend(
                gradient,
                np.ascontiguousarray(self.curvature.columns[piece, piece]),
                self.curvature.rows,
                self.scales[here],
                self.offsets[here],
                self.grid.values,
                self.codes[piece],
                errors[piece],
            )

    def choose_scales(self) -> None:
        """Choose scale, offset and codes of every block once."""
        assert _native is not None
        errors = self._errors()
        steps, min_steps = self._steps()
        for number, (piece, gradient) in enumerate(self.curvature.gradients(errors, self.sub_block)):
            columns = np.ascontiguousarray(self.curvature.columns[piece, piece])
            factor, pivots = factored(columns)
            inverse = np.ascontiguousarray(np.linalg.inv(columns.astype(np.float64)).astype(np.float32))
            codes, own_errors = _turned_bytes(self.codes[piece]), _turned(errors[piece])
            _native.choose_scales(
                _turned(gradient),
                columns,
                inverse,
                factor,
                pivots,
                self.curvature.rows,
                int(self.grid.kind),
                self.grid.lowest,
                self.grid.highest,
                self.grid.highest_min,
                steps[number],
                min_steps[number],
                self.grid.scale_table,
                self.grid.values,
                self.scales[number],
                self.offsets[number],
                codes,
                own_errors,
            )
            self.codes[piece], errors[piece] = codes.T, own_errors.T

    def fit_steps(self) -> None:
        """Fit d and d_min of every super-block to its codes and multiples."""
        if self.grid.kind not in (ScaleKind.MULTIPLE, ScaleKind.TWO_MULTIPLES):
            return
        assert _native is not None
        n, size = self.weights.shape[1], self.format.block_size
        errors = self._errors()
        multiples, mins = self._multiples()
        d, d_min = (part.reshape(n, -1).copy() for part in (self.numbers.d, self.numbers.d_min))
        for number, (piece, gradient) in enumerate(self.curvature.gradients(errors, size)):
            own = slice(number * self.grid.sub_blocks, (number + 1) * self.grid.sub_blocks)
            steps, min_steps, own_errors = d[:, number].copy(), d_min[:, number].copy(), _turned(errors[piece])
            _native.fit_steps(
                gradient=_turned(gradient),
                columns=np.ascontiguousarray(self.curvature.columns[piece, piece]),
                rows=self.curvature.rows,
                levels=_turned(np.repeat(multiples[own], self.sub_block, axis=0) * self.grid.values[self.codes[piece]]),
                mins=_turned(np.repeat(mins[own], self.sub_block, axis=0)) if self.grid.highest_min else None,
                steps=steps,
                min_steps=min_steps,
                errors=own_errors,
            )
            d[:, number], d_min[:, number], errors[piece] = steps, min_steps, own_errors.T
            self.scales[own], self.offsets[own] = steps * multiples[own], -(min_steps * mins[own])
        self.numbers.d, self.numbers.d_min = d.reshape(-1, 1), d_min.reshape(-1, 1)

    def _multiples(self) -> tuple[FloatArray, FloatArray]:
        """Return the whole numbers that d and d_min are multiplied with, (sub-blocks of a row, n) each."""
        steps, min_steps = (np.where(part == 0, np.float32(1), part) for part in self._steps())
        return np.rint(self.scales / steps), np.rint(-self.offsets / min_steps)

    def blocks(self) -> ByteArray:
        n, shape = self.weights.shape[1], self.numbers.scales.shape
        scales, offsets = (np.ascontiguousarray(part.T).reshape(shape) for part in (self.scales, self.offsets))
        codes = _turned_bytes(self.codes).reshape(self.numbers.codes.shape)
        numbers = self.grid.with_scales_and_offsets(self.numbers, scales, offsets, codes)
        return self.grid.pack(numbers).reshape(n, -1)

    def _errors(self) -> FloatArray:
        expanded = (np.repeat(part, self.sub_block, axis=0) for part in (self.scales, self.offsets))
        scales, offsets = expanded
        errors: FloatArray = self.weights - (scales * self.grid.values[self.codes] + offsets)
        return errors

    def _steps(self) -> tuple[FloatArray, FloatArray]:
        """Return d and d_min for every sub-block, (sub-blocks of a row, n) each."""
        n, shape = self.weights.shape[1], self.numbers.scales.shape
        d, d_min = (np.broadcast_to(part, shape).reshape(n, -1) for part in (self.numbers.d, self.numbers.d_min))
        return _turned(d), _turned(d_min)


def _turned(values: FloatArray) -> FloatArray:
    return np.ascontiguousarray(values.T, dtype=np.float32)


def _turned_bytes(values: ByteArray) -> ByteArray:
    return np.ascontiguousarray(values.T)
