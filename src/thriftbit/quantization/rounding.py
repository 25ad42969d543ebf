"""Rounding a matrix as a whole: choose a value of the format for each weight, so that the model's predictions change
least.

The problem: `Format.encode` fits every block alone, as if errors in different weights were unrelated. They are related.
Where inputs are correlated, an error in one column can be compensated in another. Where outputs act together on the
prediction, an error in one row can be compensated in another. E is the error of a matrix, A the second moment of its
inputs, and G the second moment of the gradients of the model's log-probabilities by its outputs. Then the divergence
that the error causes is about ½ · trace(Eᵀ G E A): the Fisher information in Kronecker factors (arXiv 1503.05671), used
for rounding as in 2505.22988.

The choice: begin with the encoder's scales, and feed errors back over columns and rows (2210.17323 does it over
columns). Then, in turns, choose the scale of every block again together with its codes, and let single codes move
downhill. Every step lowers the same cost, on the values that the file will hold. d and d_min of super-blocks stay as
the encoder found them.

Without rows (G unknown or too large), G is 1. Left out: moving d of super-blocks, and the effect of other matrices'
errors on this one (`tuning` changes the target instead).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thriftbit.errors import ThriftbitError
from thriftbit.formats import Format
from thriftbit.formats.format import ByteArray, FloatArray, _native
from thriftbit.formats.grid import Grid, Numbers
from thriftbit.quantization.product_threads import fastest_products

# A moment of few tokens is uncertain. A share of its mean diagonal is added to the diagonal. Each number of the
# diagonal also grows by a share of itself, in proportion to size of the matrix ÷ tokens. With few tokens, the moment
# thus becomes its diagonal, which is importance. Adding one number for all would hide the rest where one huge token
# dominates.
COLUMN_DAMPING, ROW_DAMPING = 0.01, 0.03
COLUMN_CHANCE, ROW_CHANCE = 2.0, 3.0
TURNS = 3  # of choosing scales and moving codes
PIECE = 64  # columns between two matrix products
LARGE = 512  # a matrix with more rows is factored in pieces of this many
STRETCH = 512  # columns whose gradients are computed in one large product, which is faster than many small ones


def can_round(format: Format) -> bool:
    """Whether the format has something to choose, and the compiled kernels are there."""
    return isinstance(format.grid, Grid) and _native is not None


@dataclass(frozen=True)
class Curvature:
    """columns: float32 (width, width), the second moment of the matrix's inputs. rows: float32 (n, n), the second
    moment of the gradients by its outputs; None for the identity. Neither has to be regular.

    tokens: how many tokens they were measured on; None for so many that chance plays no role. Where tokens have weights
    w, this is the effective number (Σ w)² ÷ Σ w²: the number of equally weighted tokens with the same variance.
    """

    columns: FloatArray
    rows: FloatArray | None = None
    tokens: float | None = None

    def damped(self) -> Curvature:
        """Return a positive definite curvature, scaled to a diagonal around one, because products of small numbers
        leave the range of float32. Raises ThriftbitError for values that are not finite."""
        chance = 1 / self.tokens if self.tokens else 0.0
        columns, _ = damped(self.columns, COLUMN_DAMPING, COLUMN_CHANCE * chance * len(self.columns))
        if self.rows is None:
            return Curvature(columns)
        rows, _ = damped(self.rows, ROW_DAMPING, ROW_CHANCE * chance * len(self.rows))
        return Curvature(columns, rows)

    def cost(self, errors: FloatArray) -> float:
        """errors: float32 (n, width). Return trace(Eᵀ G E A), float64."""
        by_columns = errors @ self.columns
        by_rows = errors if self.rows is None else self.rows @ errors
        return float(np.einsum("ij,ij->", by_columns, by_rows, dtype=np.float64))


@fastest_products()
def round_matrix(
    weights: FloatArray,
    format: Format,
    curvature: Curvature,
    blocks: ByteArray,
    *,
    turns: int = TURNS,
) -> ByteArray:
    """Return uint8 (n, row bytes): blocks that cost less, by `curvature`, than the given ones.

    weights: float32 (n, width). blocks: the result of `format.encode`. The result is the same on every run. On another
    machine, matrix products may differ in the last bit, and so may codes. Raises ThriftbitError for a format without a
    grid, or without compiled kernels.
    """
    if not can_round(format):
        raise ThriftbitError(f"{format.name}: has nothing to choose, or the compiled kernels are missing")
    state = _State.of(weights, format, curvature.damped(), blocks)
    state.feed_back()
    for _ in range(turns):
        state.choose_scales()
        state.descend()
    return state.blocks()


@dataclass
class _State:
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
    def of(cls, weights: FloatArray, format: Format, curvature: Curvature, blocks: ByteArray) -> _State:
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
        lower = _factor(self.curvature.columns[np.ix_(columns, columns)])[0]
        rows, by_row = np.arange(n), None
        if self.curvature.rows is not None:
            rows = np.argsort(self.curvature.rows.diagonal(), kind="stable")
            by_row = _factor(self.curvature.rows[np.ix_(rows, rows)])[0]
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
        for piece, gradient in self._gradients(errors, PIECE):
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
        for number, (piece, gradient) in enumerate(self._gradients(errors, self.sub_block)):
            columns = np.ascontiguousarray(self.curvature.columns[piece, piece])
            factor, pivots = _factor(columns)
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
                self.grid.values,
                self.scales[number],
                self.offsets[number],
                codes,
                own_errors,
            )
            self.codes[piece], errors[piece] = codes.T, own_errors.T

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

    def _gradients(self, errors: FloatArray, columns: int) -> Iterator[tuple[slice, FloatArray]]:
        """Yield pieces of `columns` columns, with half of the derivative of the cost by their errors, (columns, n).

        errors: (width, n). Before the next piece is asked for, the caller may change the errors in the piece's columns
        only.
        """
        width = len(errors)
        for first in range(0, width, STRETCH):
            stretch = slice(first, min(first + STRETCH, width))
            before = errors[stretch].copy()
            at_first = self.curvature.columns[stretch] @ errors
            for start in range(first, stretch.stop, columns):
                piece, done = slice(start, min(start + columns, width)), slice(first, start)
                gradient = at_first[start - first : piece.stop - first]
                gradient += self.curvature.columns[piece, done] @ (errors[done] - before[: start - first])
                if self.curvature.rows is not None:
                    gradient = gradient @ self.curvature.rows
                yield piece, gradient

    def _steps(self) -> tuple[FloatArray, FloatArray]:
        """Return d and d_min for every sub-block, (sub-blocks of a row, n) each."""
        n, shape = self.weights.shape[1], self.numbers.scales.shape
        d, d_min = (np.broadcast_to(part, shape).reshape(n, -1) for part in (self.numbers.d, self.numbers.d_min))
        return _turned(d), _turned(d_min)


def _turned(values: FloatArray) -> FloatArray:
    return np.ascontiguousarray(values.T, dtype=np.float32)


def _turned_bytes(values: ByteArray) -> ByteArray:
    return np.ascontiguousarray(values.T)


def damped(moment: FloatArray, share_of_mean: float, share_of_own: float) -> tuple[FloatArray, float]:
    """Add these shares of the mean diagonal, and of the diagonal itself, to the diagonal of `moment`, float32 (n, n).
    Return the result divided by the mean of the old diagonal, and that mean."""
    if not np.isfinite(moment).all():
        raise ThriftbitError("calibration data with values that are not finite; calibrate again")
    mean = float(moment.diagonal().mean(dtype=np.float64))
    if not mean > 0:
        return np.eye(len(moment), dtype=np.float32), 1.0
    result: FloatArray = moment + moment.T
    result *= np.float32(0.5 / mean)
    diagonal = np.diag_indices(len(result))
    result[diagonal] += result[diagonal] * np.float32(share_of_own) + np.float32(share_of_mean)
    return result, mean


def _factor(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return L, unit lower triangular, and D with matrix = L · diag(D) · Lᵀ. ThriftbitError if it is not definite."""
    lower = _cholesky(matrix)
    pivots = lower.diagonal().copy()
    lower /= pivots
    return lower.astype(np.float32, copy=False), (pivots * pivots).astype(np.float32)


def _cholesky(matrix: FloatArray) -> NDArray[np.floating[Any]]:
    """Return the lower triangular factor: of a large matrix in float32 where that works, else in float64."""
    if len(matrix) > LARGE:
        with suppress(np.linalg.LinAlgError):
            return _large_cholesky(matrix)
    exact: NDArray[np.float64] = matrix.astype(np.float64)
    damping = 1e-6 * float(exact.diagonal().mean())
    for _ in range(6):
        try:
            return np.linalg.cholesky(exact)
        except np.linalg.LinAlgError:  # rounding took the last of what damping gave
            exact[np.diag_indices(len(exact))] += damping
            damping *= 10
    raise ThriftbitError("calibration data that is no second moment; calibrate again")


def _large_cholesky(matrix: FloatArray) -> FloatArray:
    """Return the factor in float32, in a third of the time and a quarter of the memory of float64. LinAlgError where
    rounding errors make the matrix indefinite."""
    lower = np.tril(matrix)
    for start in range(0, len(lower), LARGE):
        stop = start + LARGE
        corner = np.linalg.cholesky(lower[start:stop, start:stop].astype(np.float64))
        lower[start:stop, start:stop] = corner
        below = lower[stop:, start:stop]
        below[:] = below @ np.linalg.inv(corner).T.astype(np.float32)
        for column in range(stop, len(lower), LARGE):
            rows = below[column - stop :]
            lower[column:, column : column + LARGE] -= rows @ rows[:LARGE].T
    return lower
